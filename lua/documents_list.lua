#!lua flags=no-writes,allow-oom
-- documents_list: one page of the documents of a space, by name.
--
-- KEYS: documents document_names
-- ARGV: now limit cursor
--   cursor  "" for the first page, else the last name of the page before
-- Returns: {"1" if there may be more or "", then for each document: name, version 7 .. data}
-- Invariants: reads only; a document that stays is listed exactly once.

-- include: base
local documents, document_names = KEYS[1], KEYS[2]
local limit, cursor = tonumber(ARGV[2]), ARGV[3]
-- include: order

local rank = cursor == '' and 0 or rank_behind(document_names, 0, cursor)
local answer, bytes = { '' }, 0
while answer[1] == '' do
  local page = call('ZRANGE', document_names, rank, rank + 63)
  if #page == 0 then break end
  for _, name in ipairs(page) do
    if #answer > 2 * limit or bytes >= BUDGET then
      answer[1] = '1'
      break
    end
    local held = call('HGET', documents, name)
    if held and #held >= 7 then
      answer[#answer + 1] = name
      answer[#answer + 1] = held
      bytes = bytes + #held
    end
  end
  rank = rank + 64
end
return answer
