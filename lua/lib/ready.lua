-- The ready jobs. Needs: base, meta, record, KEYS ready staged prio.
--
-- An element is position (7 bytes) .. id, so that elements of one priority sort by position: a tick at the
-- back, FRONT - tick at the front, which is below every tick and falls. Priority 0
-- is the list staged + ready; the other priorities are the sorted set prio, scored by minus the priority.
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
  return call('LLEN', ready) + call('LLEN', staged) - blanks + call('ZCARD', prio)
end

-- Put a job behind all others of its priority; the caller stores the record.
local function put_back(job, id)
  tick = tick + 1
  job.state, job.mark = 'Q', tick
  local element, priority = spack('>I7', job.mark) .. id, priority_of(job)
  if priority == 0 then
    call('RPUSH', ready, element)
  else
    call('ZADD', prio, -priority, element)
    wake()
  end
end

-- Put jobs, given with their `id`, before all others of their priority in the order of their fences.
local function put_front(list)
  unstage()
  table.sort(list, function(a, b) return a.fence > b.fence end)
  local others = false
  for _, job in ipairs(list) do
    tick = tick + 1
    job.state, job.mark, job.worker = 'Q', FRONT - tick, ''
    local element, priority = spack('>I7', job.mark) .. job.id, priority_of(job)
    if priority == 0 then
      call('LPUSH', ready, element)
    else
      call('ZADD', prio, -priority, element)
      others = true
    end
  end
  if others then wake() end
end
