-- Claims where the queue has rules or groups: by limits and in turns. Steps of exchange, not a function.
local room = 0
if paused then
  most, stops = 0, true
else
  local before = call('HLEN', running)
  room = admit(queue_limit, before, root().tat, most)
  local fewer = room < most
  most = room
  -- Groups whose rate has opened since take part again, and idle ones are forgotten.
  for _, name in ipairs(call('ZRANGEBYSCORE', opens, 0, now, 'LIMIT', 0, MOST)) do group_at(name).parked = false end
  for _, name in ipairs(call('ZRANGEBYSCORE', opens, -now, '(0', 'LIMIT', 0, 64)) do group_at(name) end
  if group_limit.interval then -- after the clock was set back: none can have to wait for so long
    local latest = now + math.ceil((group_limit.tolerance + group_limit.interval) / 1000) + 1
    for _, name in ipairs(call('ZRANGEBYSCORE', opens, string.format(WHOLE, latest), '(inf', 'LIMIT', 0, MOST)) do
      group_at(name).parked = false
    end
  end
  save_groups()

  -- The highest priority of the ready jobs without a group; nil without any.
  local function plain_priority()
    local one = call('ZRANGE', prio, 0, 0, 'WITHSCORES')
    if one[2] and tonumber(one[2]) < 0 then return -tonumber(one[2]) end
    while true do
      local first = call('LINDEX', ready, 0)
      if first and first ~= '' then return 0 end
      if not first then break end
      call('LPOP', ready)
      blanks = blanks - 1
    end
    return one[2] and -tonumber(one[2])
  end

  local function claim_plain(priority, count)
    if priority == 0 then
      local elements = call('LPOP', ready, string.format('%d', count))
      local stopped = claim(elements)
      for i = #elements, stopped or #elements + 1, -1 do call('LPUSH', ready, elements[i]) end
    else
      local elements = call('ZRANGEBYSCORE', prio, -priority, -priority, 'LIMIT', 0, count)
      local stopped = claim(elements)
      call('ZREM', prio, unpack(elements, 1, stopped and stopped - 1 or #elements))
    end
  end

  -- What the groups of some members of the ring may start in their turns: elements, and for each its group and line.
  local function plan(members, key, behind, count)
    local elements, from, names = {}, {}, {}
    for i, member in ipairs(members) do names[i] = sub(member, 10) end
    fetch_groups(names)
    for _, member in ipairs(members) do
      local priority, turn = sunpack('>I2I7', member)
      if priority ~= key or #elements >= count or (behind and turn > behind) then break end
      local name = sub(member, 10)
      local group, prefix = group_at(name), sub(member, 1, 2) .. spack('>I2', #name) .. name
      local line = group.lines[priority]
      local function front(most)
        return call('ZRANGEBYLEX', lines, '[' .. prefix, '(' .. prefix .. '\255', 'LIMIT', 0, most)
      end
      local found = line and front(2) or {}
      local left = line and line.left or 0
      if left == 0 then left = found[1] and byte(found[1], #prefix + 8) or 1 end
      local want = math.min(left, count - #elements)
      local granted, tat = admit(group_limit, group.running, group.tat, want)
      if #found == 0 then -- after foreign hands
        call('ZREM', ring, member)
        group.lines[priority] = nil
      elseif granted == 0 then
        local at = opens_at(group_limit, group.running, tat)
        group.tat, group.parked, group.until_ = tat, true, at and string.format(WHOLE, at) or 'inf'
      else
        if granted > 1 then found = front(granted + 1) end
        for i = 1, math.min(granted, #found) do
          elements[#elements + 1] = sub(found[i], #prefix + 1, #prefix + 7) .. sub(found[i], #prefix + 9)
          from[#elements] = { group = group, line = line, key = priority, member = found[i], left = left - i, last = i == #found }
        end
      end
    end
    return elements, from
  end

  -- Claim what was planned, and note of each group what it has started.
  local function take(elements, from)
    local at = #answer + 1
    local stopped = claim(elements)
    local gone = {}
    for i = 1, (stopped or #elements + 1) - 1 do
      local one = from[i]
      local group, line = one.group, one.line
      gone[i] = one.member
      if answer[at] == sub(elements[i], 8) then
        at = at + 2
        local _, tat = admit(group_limit, group.running, group.tat, 1)
        group.running, group.tat = group.running + 1, tat
      end
      line.left = one.left
      if one.last then
        group.lines[one.key] = nil
      elseif one.left == 0 then
        line.turn = next_turn()
      end
    end
    if #gone > 0 then call('ZREM', lines, unpack(gone)) end
  end

  while claimed < most and bytes < BUDGET do
    local count = math.min(stride, most - claimed)
    local plain, members = plain_priority(), call('ZRANGE', ring, 0, count - 1)
    local key = members[1] and sunpack('>I2', members[1])
    local first = key and 32767 - key
    if not first and not plain then break end
    local turn = key and (root().turns[key] or 0)
    if not first or (plain and plain > first) then
      claim_plain(plain, count)
    elseif plain == first and turn < sunpack('>I7', members[1], 3) then
      local had = claimed
      claim_plain(plain, 1)
      if claimed > had then root().turns[key] = next_turn() end
    else
      local elements, from = plan(members, key, plain == first and turn or nil, count)
      if #elements > 0 then take(elements, from) end
      save_groups()
    end
  end

  local _, tat = admit(queue_limit, before, root().tat, claimed)
  root().tat = tat
  save_groups()
  local waiting = ready_count()
  local at = opens_at(queue_limit, call('HLEN', running), tat)
  local closed = not at or at > now
  local ringed = call('ZCARD', ring) > 0
  if waiting > 0 and claimed < limit then
    if at and not closed and not ringed and call('LLEN', ready) == blanks and call('ZCARD', prio) == 0 then
      local next_one = call('ZRANGEBYSCORE', opens, 0, '(inf', 'WITHSCORES', 'LIMIT', 0, 1)
      at = next_one[2] and tonumber(next_one[2])
    end
    if at and at > now then due = due and math.min(due, at) or at end
  end
  if waiting > 0 and closed then
    held = true
  elseif ringed or call('ZCARD', prio) > 0 then
    wake()
  end
  -- Who was told that nothing may start waits on another channel than for new jobs.
  if not closed and waiting > 0 and count > 0 and queue_limit.running then announce() end
  if fewer then most = math.huge end -- that no more were claimed has another reason
end
