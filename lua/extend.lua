#!lua flags=allow-oom
-- extend: renew leases and store progress.
--
-- KEYS: running meta
-- ARGV: now caller lease_ms, then for each lease: id head progress
--   head  fence 7, "1" if progress is given
-- Returns: one status per lease: "H" held, "C" held and asked to cancel, "L" lost
-- Invariants: nothing changes where the fence is not that of the running record. A worker that renews
-- nothing for 0 ms leaves.

-- include: base
local running, meta = KEYS[1], KEYS[2]
local caller, until_ = ARGV[2], now + tonumber(ARGV[3])
-- include: record
-- include: seen

local status = {}
for i = 4, #ARGV, 3 do
  local id, head = ARGV[i], ARGV[i + 1]
  local record = call('HGET', running, id)
  if not record or not sound(record) or sub(record, 24, 30) ~= sub(head, 1, 7) then
    status[#status + 1] = 'L'
  else
    if sub(head, 8, 8) == '1' then
      local job = parse(record)
      job.progress = ARGV[i + 2]
      record = build(job)
    end
    record = sub(record, 1, 2) .. spack('>I6I7', now, until_) .. sub(record, 16)
    call('HSET', running, id, record)
    status[#status + 1] = byte(record, 2) % 2 == 0 and 'H' or 'C'
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
