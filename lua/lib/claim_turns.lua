-- Claims where the queue has rules or groups: by limits and in turns. Steps of exchange, not a function.
local GROUP, LINE, SIMPLE = 12, 12, 34 -- sizes: what is known of a group; of a line without its head; of one with a job
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

  -- How many of some members of the ring have a priority (2), and a turn up to `behind`.
  local function count_before(members, priority, behind)
    local n = #members
    while n > 0 and (sub(members[n], 1, 2) ~= priority or (behind and sunpack('>I7', members[n], 3) > behind)) do
      n = n - 1
    end
    return n
  end

  -- Add the first elements of a head to others, of which there are n; return how many these are then, and whether the
  -- head has no more.
  local function add_first(most, head, elements, n)
    local at, size = 1, nil
    while most > 0 and at <= #head do
      size, at = sunpack('>I2', head, at)
      n, at, most = n + 1, at + size, most - 1
      elements[n] = sub(head, at - size, at - 1)
    end
    return n, at > #head
  end

  -- Note that a group may not start a job before its rate opens or a run of it ends.
  local function park(group, tat)
    local at = opens_at(group_limit, group.running, tat)
    group.tat, group.parked, group.until_ = tat, true, at and string.format(WHOLE, at) or 'inf'
  end

  -- Add to elements, of which there are n, what a group may start in a turn; return how many these are then, and of the
  -- group: itself, line, number of elements, what is left of the turn, the next turn. `whole`: whether the head is known
  -- to be all of the line.
  local function plan_turn(elements, n, prefix, group, whole, key, want, turn)
    local line = group.lines[key]
    if line and line.head == '' then line.head, whole = turns.read_head(prefix, 2) end
    if not line or line.head == '' then -- after foreign hands
      group.lines[key] = nil
      return n
    end
    line.ringed = false
    local left = line.left
    if left == 0 then left = byte(line.head, 10) end -- the weight of its first job
    local granted, tat = admit(group_limit, group.running, group.tat, math.min(left, want))
    if granted == 0 then
      park(group, tat)
      return n
    end
    local had, ends = n, nil
    n, ends = add_first(granted, line.head, elements, had)
    if ends and not whole then -- only then is it known whether the line goes on
      line.head = turns.read_head(prefix, granted + 1)
      n = add_first(granted, line.head, elements, had)
    end
    return n, { group, line, n - had, left, turn }
  end

  -- The data of a group of one line with another head, and whether that is all of the line.
  local function with_head(data, prefix)
    local head, whole = turns.read_head(prefix, 2)
    return sub(data, 1, GROUP + LINE - 2) .. spack('>I2', #head) .. head, whole
  end

  -- What a group begins with when it has started one job at its turn of a priority; false: it may not start one, or not
  -- in this line. Most groups begin alike: what has no number of a rate is noted in `known`.
  local function opening_of(data, key, known)
    local running, tat, parked, priority = sunpack('>I4I7BI2', data)
    if priority ~= key or parked ~= 0 then return false end
    local granted, later = admit(group_limit, running, tat, 1)
    local opening = granted == 1 and spack('>I4I7B', running + 1, later, 0)
    if tat == 0 and later == 0 then known[sub(data, 1, GROUP + 2)] = opening end
    return opening
  end

  -- What the groups of some members of the ring, all of one priority, may start in their turns; these leave the ring.
  -- Returns ids, and their members of lines; and of each group what plan_turn returns, at its first id. Nearly all
  -- groups have one line, and start one job: to take each of them apart would cost three times as much. Of these are
  -- moved only bytes, and what is to be written is put together at once: members that enter the ring, of groups whose
  -- lines go on, and groups; and for each group the place of its id, and the member that has left.
  local function plan(members, several, key, count)
    local names, ids, gone, n, starts = {}, {}, {}, 0, {}
    local quick, m, e, seen = { entered = {}, after = {}, at = {}, left = {} }, 0, 0, 0
    local entered, after, at, left = quick.entered, quick.after, quick.at, quick.left
    -- Pieces of which there are few are put together once: what members of lines begin with, by the size of the group;
    -- what groups begin with; what precedes a head, by its size; and a place in the ring but for its last byte.
    local prefixes, openings, sizes, place = {}, {}, {}, nil
    for i = 1, several do names[i] = sub(members[i], 10) end
    local found, turn = call('HMGET', groups, unpack(names)), root().turn
    for i = 1, several do
      if n >= count then break end
      local name, data, whole, opening = names[i], found[i], false, false
      local prefix = prefixes[#name]
      if not prefix then
        prefix = spack('>I2I2', key, #name)
        prefixes[#name] = prefix
      end
      seen, turn = i, turn + 1
      local low = turn % 256
      if not place or low == 0 then place = spack('>I2I6', key, (turn - low) / 256) end
      if data and #data == GROUP + LINE and sub(data, GROUP + 1, GROUP + 9) == sub(members[i], 1, 9) then
        data, whole = with_head(data, prefix .. name)
      end
      if data and #data >= SIMPLE then
        local rest, size_high, size, first_high, first = byte(data, GROUP + 10, GROUP + 14)
        size, first = 256 * size_high + size, 256 * first_high + first
        if #data == GROUP + LINE + size and (rest == 1 or (rest == 0 and byte(data, SIMPLE) == 1)) then
          if size == 2 + first and not whole then
            data, whole = with_head(data, prefix .. name)
            size = #data - GROUP - LINE
          end
          if size > 2 + first or whole then
            opening = openings[sub(data, 1, GROUP + 2)]
            if opening == nil then opening = opening_of(data, key, openings) end
          end
          if opening then
            local behind = GROUP + LINE + 3 + first
            n, m, size = n + 1, m + 1, size - first - 2
            gone[n] = prefix .. name .. sub(data, behind - first, behind - 1)
            ids[n] = sub(data, behind - first + 8, behind - 1)
            if size > 0 then
              local middle, last = sizes[size], string.char(low)
              if not middle then
                middle = spack('>BI2', 0, size)
                sizes[size] = middle
              end
              e = e + 2
              entered[e - 1], entered[e] = '0', place .. last .. name
              opening = opening .. place .. last .. middle .. sub(data, behind)
            end
            after[2 * m - 1], after[2 * m], at[m], left[m] = name, opening, n, members[i]
          end
        end
      end
      if not opening then
        prefix = prefix .. name
        local had, group = n, group_at(name, data)
        n, starts[had + 1] = plan_turn(gone, had, prefix, group, whole, key, count - had, turn)
        for j = had + 1, n do ids[j], gone[j] = sub(gone[j], 9), prefix .. gone[j] end
      end
    end
    root().turn = turn
    call('ZREMRANGEBYRANK', ring, '0', string.format('%d', seen - 1))
    return ids, gone, starts, quick
  end

  -- Claim what was planned; write what becomes of the groups that are quick, and note what of the others.
  local function take(key, ids, gone, starts, quick)
    local had, from = claimed, #answer
    local stopped = claim_ids(ids)
    local taken = (stopped or #ids + 1) - 1
    local lost = {} -- those that nobody runs, since they had no record
    if claimed - had < taken then
      local at = from + 1
      for i = 1, taken do
        if answer[at] == ids[i] then at = at + 2 else lost[i] = true end
      end
    end
    local entered, after, m, e = quick.entered, quick.after, #quick.at, #quick.entered
    if claimed - had < #ids then
      for i, n in ipairs(quick.at) do
        if lost[n] then
          local group = group_at(after[2 * i - 1], after[2 * i])
          group.running = group.running - 1
        end
      end
      while m > 0 and quick.at[m] > taken do
        call('ZADD', ring, '0', quick.left[m])
        if #after[2 * m] > GROUP then e = e - 2 end
        m = m - 1
      end
    end
    if m > 0 then call('HSET', groups, unpack(after, 1, 2 * m)) end
    if e > 0 then
      call('ZADD', ring, unpack(entered, 1, e))
      turns.wake()
    end
    for n, start in pairs(starts) do
      local group, line, started, rest, turn = unpack(start)
      local cut, prefix = 1, 4 + #group.name
      started = math.min(started, taken - n + 1)
      for i = n, n + started - 1 do
        cut = cut + 2 + #gone[i] - prefix
        if not lost[i] then
          if group_limit.interval then
            local _, tat = admit(group_limit, group.running, group.tat, 1)
            group.tat = tat
          end
          group.running = group.running + 1
        end
      end
      if started > 0 then
        line.head, line.left = sub(line.head, cut), rest - started
        if line.head == '' then
          turns.drop_line(group, key)
        elseif line.left == 0 then
          line.place = spack('>I2I7', key, turn)
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
      local had, name = claimed, sub(members[1], 10)
      local data, running, tat, granted = call('HGET', groups, name), nil, nil, nil
      if data and #data >= GROUP then
        running, tat = sunpack('>I4I7', data)
        granted, tat = admit(group_limit, running, tat, 1)
      end
      if granted == 0 then -- nobody waits for that turn
        park(group_at(name, data), tat)
        save_groups()
      else
        claim_plain(plain, 1)
        if claimed > had then root().turns[key] = next_turn() end
      end
    else
      local several = count_before(members, spack('>I2', key), plain == first and turn or nil)
      local ids, gone, starts, quick = plan(members, several, key, count)
      if #ids > 0 then take(key, ids, gone, starts, quick) end
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
