#!lua flags=no-writes,allow-oom
-- asked: whether runs were asked to end.
--
-- KEYS: jobs running
-- ARGV: now, then for each run: fence 7 .. id
-- Returns: one status per run: "A" asked, also if it has ended by that since, "N" not
-- Invariants: reads only.

-- include: base
local jobs, running = KEYS[1], KEYS[2]
-- include: record

local status = {}
for i = 2, #ARGV do
  local fence, id = sunpack('>I7', ARGV[i]), sub(ARGV[i], 8)
  local record = call('HGET', running, id) or call('HGET', jobs, id)
  local job = record and sound(record) and parse(record)
  local asked = job and job.fence == fence and (job.cancelling ~= 0 or job.state == 'X')
  status[#status + 1] = asked and 'A' or 'N'
end
return table.concat(status)
