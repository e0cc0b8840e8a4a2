#!lua flags=allow-oom
-- expired: find the running jobs whose lease has ended, a page at a time.
--
-- KEYS: running ready staged
-- ARGV: now cursor
--   cursor  "0" for the first page, else what the page before gave
-- Returns: {cursor of the next page or "0", then for each job: fence 7 .. id}
-- Invariants: what idle workers moved aside goes back, so that a dead one keeps nobody asleep. Otherwise
--   reads only: sweep looks again.

-- include: base
local running, ready, staged = KEYS[1], KEYS[2], KEYS[3]
local cursor = ARGV[2]
-- include: record

while call('LMOVE', staged, ready, 'RIGHT', 'LEFT') do end
local page = call('HSCAN', running, cursor, 'COUNT', 1000)
local answer, all = { page[1] }, page[2]
for i = 1, #all, 2 do
  local record = all[i + 1]
  if #record < FENCE_END then -- sweep sets it aside
    answer[#answer + 1] = '\0\0\0\0\0\0\0' .. all[i]
  elseif sunpack('>I7', record, MARK) <= now then
    answer[#answer + 1] = sub(record, FENCE, FENCE_END) .. all[i]
  end
end
return answer
