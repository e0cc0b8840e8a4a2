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

  -- What the groups of some members of the ring may start in their turns: elements, their members of lines, and for each
  -- line that has some: group, line, priority, number of elements, what is left of the turn, and whether it has no more.
  local function plan(members, key, behind, count)
    local elements, gone, starts, names = {}, {}, {}, {}
    for i, member in ipairs(members) do names[i] = sub(member, 10) end
    fetch_groups(names)
    for i, member in ipairs(members) do
      local priority, turn = sunpack('>I2I7', member)
      if priority ~= key or #elements >= count or (behind and turn > behind) then break end
      local name = names[i]
      local group, prefix, position = group_at(name), sub(member, 1, 2) .. spack('>I2', #name) .. name, #name + 5
      local line, from, to = group.lines[priority], '[' .. prefix, '(' .. prefix .. '\255'
      -- Arguments as text: a number is written out for each command.
      local found = line and call('ZRANGEBYLEX', lines, from, to, 'LIMIT', '0', '2') or {}
      local left = line and line.left or 0
      if left == 0 then left = found[1] and byte(found[1], position + 7) or 1 end
      local granted, tat = admit(group_limit, group.running, group.tat, math.min(left, count - #elements))
      if #found == 0 then -- after foreign hands
        call('ZREM', ring, member)
        group.lines[priority] = nil
      elseif granted == 0 then
        local at = opens_at(group_limit, group.running, tat)
        group.tat, group.parked, group.until_ = tat, true, at and string.format(WHOLE, at) or 'inf'
      else
        if granted > 1 then found = call('ZRANGEBYLEX', lines, from, to, 'LIMIT', '0', granted + 1) end
        local started = math.min(granted, #found)
        for n = 1, started do
          local one = found[n]
          elements[#elements + 1] = sub(one, position, position + 6) .. sub(one, position + 8)
          gone[#gone + 1] = one
        end
        starts[#starts + 1] = { group, line, key, started, left, started == #found }
      end
    end
    return elements, gone, starts
  end

  -- Claim what was planned, and note of each group what it has started.
  local function take(elements, gone, starts)
    local at = #answer + 1
    local stopped = claim(elements)
    local taken, i = (stopped or #elements + 1) - 1, 0
    for _, start in ipairs(starts) do
      local group, line, key, started, left, no_more = unpack(start)
      if i + started > taken then started, no_more = taken - i, false end
      for _ = 1, started do
        i = i + 1
        if answer[at] == sub(elements[i], 8) then
          at = at + 2
          if group_limit.interval then
            local _, tat = admit(group_limit, group.running, group.tat, 1)
            group.tat = tat
          end
          group.running = group.running + 1
        end
      end
      if started > 0 then
        line.left = left - started
        if no_more then
          group.lines[key] = nil
        elseif line.left == 0 then
          line.turn = next_turn()
        end
      end
    end
    if taken > 0 then call('ZREM', lines, unpack(gone, 1, taken)) end
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
      local elements, gone, starts = plan(members, key, plain == first and turn or nil, count)
      if #elements > 0 then take(elements, gone, starts) end
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
