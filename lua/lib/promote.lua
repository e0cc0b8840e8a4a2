-- Scheduled jobs. Needs: base, record, ready, groups, KEYS jobs scheduled failing.
--
-- scheduled and failing hold seq (7 bytes) .. id, scored by the due time.

-- Put a job behind all others of its priority; the caller stores the record.
local function put_back(job, id)
  tick = tick + 1
  job.state, job.mark = 'Q', tick
  local element, priority, group = spack('>I7', job.mark) .. id, priority_of(job), grouped and group_of(job.extras)
  if group then
    place_line(job, id, group)
  elseif priority == 0 then
    call('RPUSH', ready, element)
  else
    call('ZADD', prio, -priority, element)
    wake()
  end
end

-- When the next job is due; nil if none is scheduled.
local function next_due()
  local one = call('ZRANGE', scheduled, '0', '0', 'WITHSCORES')[2]
  local two = call('ZRANGE', failing, '0', '0', 'WITHSCORES')[2]
  one, two = one and tonumber(one), two and tonumber(two)
  return one and two and math.min(one, two) or one or two
end

-- Move up to `most` due jobs to the back of ready, by due time, then by seq.
local function promote(most)
  local list = {}
  for _, key in ipairs({ scheduled, failing }) do
    local members = call('ZRANGEBYSCORE', key, '-inf', now, 'WITHSCORES', 'LIMIT', 0, most)
    for i = 1, #members, 2 do
      local member = members[i]
      local seq = #member >= 7 and sunpack('>I7', member) or 0
      list[#list + 1] = { key = key, member = member, due = tonumber(members[i + 1]), seq = seq }
    end
  end
  table.sort(list, function(a, b)
    if a.due ~= b.due then return a.due < b.due end
    return a.seq < b.seq
  end)
  for i = 1, math.min(most, #list) do
    local entry = list[i]
    local id = sub(entry.member, 8)
    call('ZREM', entry.key, entry.member)
    local record = call('HGET', jobs, id)
    if record and not sound(record) then
      set_aside(jobs, id)
    elseif record then
      local job = parse(record)
      put_back(job, id)
      call('HSET', jobs, id, build(job))
    end
  end
end
