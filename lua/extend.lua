#!lua flags=allow-oom
-- extend: renew leases, store progress and checkpoints.
--
-- KEYS: running meta
-- ARGV: now caller lease_ms, then for each lease: id head progress
--   head  fence 7, what is given: "0" nothing, "1" progress, "2" a checkpoint, "3" both: then progress is
--         size 4, progress, checkpoint
-- Returns: one status per lease: "H" held, "C" held and asked to cancel, "L" lost
-- Invariants: nothing changes where the fence is not that of the running record. A worker that renews
-- nothing for 0 ms leaves.

-- include: base
local running, meta = KEYS[1], KEYS[2]
local caller, until_ = ARGV[2], now + tonumber(ARGV[3])
-- include: record
-- include: extras
-- include: seen

local status = {}
for i = 4, #ARGV, 3 do
  local id, head = ARGV[i], ARGV[i + 1]
  local record = call('HGET', running, id)
  if not record or not sound(record) or sub(record, FENCE, FENCE_END) ~= sub(head, 1, 7) then
    status[#status + 1] = 'L'
  else
    local given, data = byte(head, 8) - 48, ARGV[i + 2]
    if given > 0 then
      local job = parse(record)
      if given == 3 then
        local size = sunpack('>I4', data)
        job.progress = sub(data, 5, 4 + size)
        save(job, sub(data, 5 + size))
      elseif given == 2 then
        save(job, data)
      else
        job.progress = data
      end
      record = build(job)
    end
    record = sub(record, 1, UPDATED - 1) .. spack('>I6I7', now, until_) .. sub(record, ATTEMPTS)
    call('HSET', running, id, record)
    status[#status + 1] = byte(record, FLAGS) % 2 == 0 and 'H' or 'C'
  end
end
if #ARGV == 3 and until_ == now then
  local mine = string.match(caller, '^.*%z%w+')
  local fields = call('HGETALL', meta)
  for i = 1, #fields, 2 do
    local field, noted = fields[i], fields[i + 1]
    if sub(field, 1, #mine) == mine then call('HSET', meta, field, sub(noted, 1, 6) .. LEFT .. sub(noted, 13)) end
  end
else
  call('HSET', meta, caller, seen_now(call('HGET', meta, caller)))
end
return table.concat(status)
