-- The ready jobs. Needs: base, meta, record, KEYS ready staged prio lines.
--
-- An element is position (7 bytes) .. id, so that elements of one priority sort by position: a tick at the
-- back, FRONT - tick at the front, which is below every tick and falls. Priority 0
-- is the list staged + ready; the other priorities are the sorted set prio, scored by minus the priority. Jobs with a
-- group are in neither: see groups.lua.
-- An idle worker waits in BLMOVE ready -> staged. An empty element ("blank") in the list wakes one, or
-- is left where a job was cancelled; it is skipped by whoever takes it.

local FRONT = 2 * FLOOR

-- Take back what idle workers moved aside: it is older than all that is ready.
local function unstage()
  while call('LMOVE', staged, ready, 'RIGHT', 'LEFT') do end
end

-- Wake one idle worker for work that is not in the list. A list with elements wakes by itself.
local function wake()
  if call('LLEN', ready) == 0 then
    call('RPUSH', ready, '')
    blanks = blanks + 1
  end
end

local function ready_count()
  local count = call('LLEN', ready) + call('LLEN', staged) - blanks + call('ZCARD', prio)
  return grouped and count + call('ZCARD', lines) or count
end
