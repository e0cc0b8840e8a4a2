#!lua
-- documents_write: write and delete documents whose version is the expected one.
--
-- KEYS: documents document_names document_meta
-- ARGV: now caller number, then for each change: name expected data
--   expected  version that it has now, "0" if there is none; "" whatever it is
--   data      "=" .. the new data; "" deletes
-- Returns: 7 bytes per change: the version that it made, 0 if another one was there
-- Invariants: documents and document_names have the same names; no version is given twice, whatever was deleted.

-- include: base
local documents, document_names, document_meta = KEYS[1], KEYS[2], KEYS[3]
local meta = document_meta
local caller, number = ARGV[2], ARGV[3]
-- include: meta
-- include: seen
-- include: calls

if ahead == 0 then return sub(noted, 19) end
if #ARGV % 3 ~= 0 then return redis.error_reply('ERR documents_write: bad arguments') end

local answer = {}
for i = 4, #ARGV, 3 do
  local name, expected, data = ARGV[i], tonumber(ARGV[i + 1]), ARGV[i + 2]
  local held = call('HGET', documents, name)
  local version = held and #held >= 7 and sunpack('>I7', held) or 0
  if expected and expected ~= version then
    answer[#answer + 1] = spack('>I7', 0)
  else
    tick = tick + 1
    answer[#answer + 1] = spack('>I7', tick)
    if data == '' then
      call('HDEL', documents, name)
      call('ZREM', document_names, name)
    else
      call('HSET', documents, name, spack('>I7', tick) .. sub(data, 2))
      call('ZADD', document_names, 0, name)
    end
  end
end
answer = table.concat(answer)
remember(answer)
return answer
