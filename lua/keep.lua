#!lua flags=allow-oom
-- keep: make ended jobs expire at another time.
--
-- KEYS: jobs completed failed cancelled
-- ARGV: now, then for each job: id ttl_ms
-- Returns: one status per job: "U" updated, "N" not found, "L" live
-- Invariants: the index and the record say the same.

-- include: base
local jobs, completed, failed, cancelled = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
-- include: record
-- include: packs

local keys = { C = true, F = failed, X = cancelled }
local status = {}
for i = 2, #ARGV, 2 do
  local id, expires = ARGV[i], now + tonumber(ARGV[i + 1])
  local record = call('HGET', jobs, id)
  local key = record and keys[sub(record, 1, 1)]
  if not record or expired(record) then
    status[#status + 1] = 'N'
  elseif not key then
    status[#status + 1] = 'L'
  else
    if key == true then
      unfile(sunpack('>I7', record, 9), { [id] = true })
      file(string.format('%.0f', expires), { id }, 1, 1)
    else
      call('ZADD', key, expires, id)
    end
    call('HSET', jobs, id, sub(record, 1, 8) .. spack('>I7', expires) .. sub(record, 16))
    status[#status + 1] = 'U'
  end
end
return table.concat(status)
