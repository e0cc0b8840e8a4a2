-- Putting jobs back that were claimed before. Needs: base, meta, record, ready, groups.

-- Put jobs, given with their `id`, before all others of their priority in the order of their fences.
local function put_front(list)
  unstage()
  table.sort(list, function(a, b) return a.fence > b.fence end)
  local others = false
  for _, job in ipairs(list) do
    tick = tick + 1
    job.state, job.mark, job.worker = 'Q', FRONT - tick, ''
    local element, priority, group = spack('>I7', job.mark) .. job.id, priority_of(job), grouped and group_of(job.extras)
    if group then
      place_line(job, job.id, group)
    elseif priority == 0 then
      call('LPUSH', ready, element)
    else
      call('ZADD', prio, -priority, element)
      others = true
    end
  end
  if others then wake() end
end
