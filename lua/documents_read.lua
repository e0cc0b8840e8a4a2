#!lua flags=no-writes,allow-oom
-- documents_read: read documents by name.
--
-- KEYS: documents
-- ARGV: now, then names
-- Returns: for each name, of the first at least, version 7 .. data, "" where there is none
-- Invariants: reads only.

-- include: base
local documents = KEYS[1]

local answer, bytes = {}, 0
for i = 2, #ARGV do
  if bytes >= BUDGET then break end
  answer[i - 1] = call('HGET', documents, ARGV[i]) or ''
  bytes = bytes + #answer[i - 1]
end
return answer
