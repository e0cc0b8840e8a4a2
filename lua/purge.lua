#!lua flags=allow-oom
-- purge: delete expired records, and forget callers that are long gone; tell which workers share a name.
--
-- KEYS: jobs completed failed cancelled workers meta groups opens
-- ARGV: now limit
-- Returns: {how many records, 1 if the queue holds nothing any more, then names of workers that two processes
--   use at once}
-- Invariants: the server's own expiry is not used, so no record is ever half there; an empty queue
--   leaves no key but its rules.

-- include: base
local jobs, completed, failed, cancelled, workers, meta, groups, opens =
  KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7], KEYS[8]
local limit = tonumber(ARGV[2])
-- include: packs
-- include: seen

local ids = unfile_expired(limit)
local dropped = #ids
if dropped > 0 then call('HDEL', jobs, unpack(ids)) end
for _, key in ipairs({ failed, cancelled }) do
  if dropped < limit then
    ids = call('ZRANGEBYSCORE', key, '-inf', now, 'LIMIT', 0, limit - dropped)
    if #ids > 0 then
      call('ZREM', key, unpack(ids))
      call('HDEL', jobs, unpack(ids))
      dropped = dropped + #ids
    end
  end
end

-- By worker, by process: from when until when it was seen. The token of a caller begins with its process.
local spans, left = {}, 0
local fields = call('HGETALL', meta)
for i = 1, #fields, 2 do
  local field, note = fields[i], fields[i + 1]
  local worker, process = string.match(field, '^(.*)%z(%w+)')
  if worker and (#note < 12 or sunpack('>I6', note) + KEPT <= now) then
    call('HDEL', meta, field)
  elseif worker then
    left = left + 1
    if worker ~= '' and sub(note, 7, 12) ~= LEFT then
      local seen, since = sunpack('>I6I6', note)
      spans[worker] = spans[worker] or {}
      local span = spans[worker][process] or { since, seen }
      spans[worker][process] = { math.min(span[1], since), math.max(span[2], seen) }
    end
  end
end
-- Groups that are idle and whose rate has opened, and the queue's own.
for _, name in ipairs(call('ZRANGEBYSCORE', opens, -now, '(0', 'LIMIT', 0, 1000)) do
  call('ZREM', opens, name)
  call('HDEL', groups, name)
end
local root = call('HLEN', groups) == 1 and call('HGET', groups, '')
if root and (#root < 14 or sunpack('>I7', root, 8) <= now * 1000) then call('HDEL', groups, '') end
-- Version 0.1.0 had its workers in a key of their own.
local empty = left == 0 and call('EXISTS', jobs) == 0 and call('EXISTS', groups) == 0
if empty then
  local rules = call('HGET', meta, 'rules')
  call('DEL', meta, workers)
  if rules then call('HSET', meta, 'rules', rules) end
end

local answer = { dropped, empty and 1 or 0 }
for worker, processes in pairs(spans) do
  local list = {}
  for _, span in pairs(processes) do list[#list + 1] = span end
  table.sort(list, function(a, b) return a[2] > b[2] end)
  -- One that has followed another is first seen after that was seen last.
  if list[2] and math.max(list[1][1], list[2][1]) < list[2][2] then answer[#answer + 1] = worker end
end
return answer
