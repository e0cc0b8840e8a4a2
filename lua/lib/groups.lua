-- Groups. Needs: base, meta, record, ready, `grouped`, KEYS lines ring groups opens. Functions only where `grouped`.
--
-- A ready job with a group is not in ready or prio: its member of `lines` is priority 2 (32767 less it), size of
-- group 2, group, position 7, weight 1, id; all have one score. Each line, of one group and priority, has a turn: its
-- member of `ring` is priority 2 (as above), turn 7, group. A line that begins, and one that has taken its turn, gets
-- the highest turn. `groups` is group -> running 4, tat 7, parked 1, and for each line priority 2, turn 7, left 1 (of
-- the turn that it has begun; 0: it has not). The field '' is turn 7 (the last given), tat 7 (of the queue), and for
-- each priority whose jobs without a group have taken a turn: priority 2, turn 7.
-- A parked group, one that was found to be at its limit, has no member in ring; in `opens` it has the instant at
-- which its rate opens, or inf: when a run of it ends. Its lines keep their turns. A group that is idle while its rate is
-- not open has minus the instant at which it will be. Of others nothing is kept.
-- What a call changes in `groups`, `ring` and `opens` is written at its end, by save_groups.
local group_of, place_line, reweigh, leave_line, leave_lines, end_run, group_at, fetch_groups, root, next_turn, save_groups
if grouped then
  local GROUP, NO_ROOT = 12, string.rep('\0', 14)
  local touched, rooted, woken = {}, nil, false
  local changed = {} -- what save_groups writes, by name
  local ended, placed = {}, {} -- runs that have ended, by group; members to add to lines

  -- The group of a job, nil without: extras begin with it.
  function group_of(extras)
    if byte(extras, 1) ~= 103 then return nil end
    return sub(extras, 6, 5 + sunpack('>I4', extras, 2))
  end

  local function weight_of(extras)
    local at = 6 + sunpack('>I4', extras, 2)
    return byte(extras, at) == 119 and byte(extras, at + 5) or 1
  end

  -- What the members of a line begin with.
  local function line_of(priority, group) return spack('>I2I2', 32767 - priority, #group) .. group end

  local function member_of(job, id, group)
    return line_of(priority_of(job), group) .. spack('>I7', job.mark) .. string.char(weight_of(job.extras)) .. id
  end

  function root()
    if not rooted then
      local data = call('HGET', groups, '')
      if not data or #data < 14 then data = NO_ROOT end
      rooted = { turns = {} }
      rooted.turn, rooted.tat = sunpack('>I7I7', data)
      for at = 15, #data - 8, 9 do rooted.turns[sunpack('>I2', data, at)] = sunpack('>I7', data, at + 2) end
    end
    return rooted
  end

  local function read(name, data)
    local running, tat, parked, lines, was = 0, 0, 0, {}, {}
    if data and #data >= GROUP then
      running, tat, parked = sunpack('>I4I7B', data)
      for at = GROUP + 1, #data - 9, 10 do
        local priority, turn, left = sunpack('>I2I7B', data, at)
        lines[priority] = { turn = turn, left = left }
        if parked ~= 1 then was[priority] = turn end
      end
    end
    local group = {
      name = name, running = running, tat = tat, parked = parked == 1, lines = lines, was = was,
      filed = parked == 1 or (data and #data == GROUP and running == 0), -- whether it is in opens
    }
    touched[name] = group
    return group
  end

  -- A group, which may be changed until the next save.
  function group_at(name)
    local group = touched[name] or read(name, call('HGET', groups, name))
    changed[name] = group
    return group
  end

  -- Read groups together.
  function fetch_groups(names)
    local wanted = {}
    for _, name in ipairs(names) do
      if not touched[name] then wanted[#wanted + 1] = name end
    end
    for from = 1, #wanted, 1000 do
      local last = math.min(from + 999, #wanted)
      local found = call('HMGET', groups, unpack(wanted, from, last))
      for i = from, last do read(wanted[i], found[i - from + 1]) end
    end
  end

  function next_turn()
    local all = root()
    all.turn = all.turn + 1
    return all.turn
  end

  local function all(command, key, arguments)
    for from = 1, #arguments, 1000 do
      call(command, key, unpack(arguments, from, math.min(from + 999, #arguments)))
    end
  end

  -- Write what was put into lines, before anything is taken out of them.
  local function write_placed()
    all('ZADD', lines, placed)
    placed = {}
  end

  -- Put a ready job, whose mark is its position, into the line of its group.
  function place_line(job, id, name)
    local group, priority = group_at(name), 32767 - priority_of(job)
    placed[#placed + 1] = '0' -- not 0: a number is written out for each command
    placed[#placed + 1] = member_of(job, id, name)
    if not group.lines[priority] then group.lines[priority] = { turn = next_turn(), left = 0 } end
    if not group.parked then woken = true end
  end

  local function is_empty(priority, name)
    local prefix = spack('>I2I2', priority, #name) .. name
    return #call('ZRANGEBYLEX', lines, '[' .. prefix, '(' .. prefix .. '\255', 'LIMIT', '0', '1') == 0
  end

  -- What a job weighs has changed, and nothing else of its place.
  function reweigh(old, job, id, name)
    write_placed()
    call('ZREM', lines, member_of(old, id, name))
    call('ZADD', lines, '0', member_of(job, id, name))
  end

  local function leave_member(member, priority, name)
    write_placed()
    call('ZREM', lines, member)
    if is_empty(priority, name) then group_at(name).lines[priority] = nil end
  end

  function leave_line(job, id, name) leave_member(member_of(job, id, name), 32767 - priority_of(job), name) end

  -- Take a set of ids out of all lines, as leftovers does.
  function leave_lines(ids)
    local gone = {}
    write_placed()
    for from = 0, call('ZCARD', lines) - 1, 1000 do
      for _, member in ipairs(call('ZRANGE', lines, from, from + 999)) do
        local priority, size = sunpack('>I2I2', member)
        if ids[sub(member, 13 + size)] then gone[#gone + 1] = { member, priority, sub(member, 5, 4 + size) } end
      end
    end
    for _, one in ipairs(gone) do leave_member(one[1], one[2], one[3]) end
  end

  -- A run of a job of a group has ended.
  function end_run(name) ended[name] = (ended[name] or 0) + 1 end

  -- Count the runs that have ended. Of a group that takes part, and goes on to, nothing else changes: it is written into
  -- `after` without being taken apart, which would be half of what such a run costs.
  local function end_runs(after)
    local names = {}
    for name in pairs(ended) do names[#names + 1] = name end
    for from = 1, #names, 1000 do
      local last = math.min(from + 999, #names)
      local found = call('HMGET', groups, unpack(names, from, last))
      for i = from, last do
        local name, data = names[i], found[i - from + 1]
        local count, running = ended[name], data and #data >= GROUP and sunpack('>I4', data) or 0
        if running > 0 and not touched[name] and byte(data, GROUP) == 0 and (#data > GROUP or running > count) then
          after[#after + 1] = name
          after[#after + 1] = spack('>I4', math.max(0, running - count)) .. sub(data, 5)
        else
          if not touched[name] then read(name, data) end
          local group = group_at(name)
          group.running = math.max(0, group.running - count)
          -- Parked because of its runs: one of them has ended.
          if group.parked and (call('ZSCORE', opens, name) or 'inf') == 'inf' then group.parked = false end
        end
      end
    end
    ended = {}
  end

  -- Write what has changed; whether it is the end of the call.
  function save_groups(last)
    local after, left, entered = {}, {}, {}
    local forgotten, filed, unfiled = {}, {}, {}
    end_runs(after)
    for name, group in pairs(changed) do
      local idle, lapse = group.running == 0 and not next(group.lines), math.ceil(group.tat / 1000)
      if idle then group.parked = false end
      for priority, turn in pairs(group.was) do
        local line = group.lines[priority]
        if group.parked or not line or line.turn ~= turn then
          left[#left + 1] = spack('>I2I7', priority, turn) .. name
        end
      end
      local was = group.was
      group.was = {}
      if not group.parked then
        for priority, line in pairs(group.lines) do
          if was[priority] ~= line.turn then
            entered[#entered + 1] = '0'
            entered[#entered + 1] = spack('>I2I7', priority, line.turn) .. name
          end
          group.was[priority] = line.turn
        end
      end
      if idle and lapse <= now then
        forgotten[#forgotten + 1] = name
      else
        local data = spack('>I4I7B', group.running, group.tat, group.parked and 1 or 0)
        for priority, line in pairs(group.lines) do
          data = data .. spack('>I2I7B', priority, line.turn, line.left)
        end
        after[#after + 1] = name
        after[#after + 1] = data
      end
      if idle and lapse > now then
        filed[#filed + 1] = string.format(WHOLE, -lapse)
        filed[#filed + 1] = name
      elseif group.parked and group.until_ then
        filed[#filed + 1] = group.until_
        filed[#filed + 1] = name
      elseif group.filed and not group.parked then
        unfiled[#unfiled + 1] = name
      end
      group.filed, group.until_ = group.parked or (idle and lapse > now), nil
    end
    changed = {}
    write_placed()
    all('ZREM', ring, left)
    all('ZADD', ring, entered)
    all('HSET', groups, after)
    all('HDEL', groups, forgotten)
    all('ZADD', opens, filed)
    all('ZREM', opens, unfiled)
    woken = woken or #entered > 0
    if not last then return end
    if woken then wake() end
    if next(touched) or rooted then
      local left = call('HLEN', groups) - call('HEXISTS', groups, '')
      rooted = root()
      if left == 0 and rooted.tat <= now * 1000 then
        call('HDEL', groups, '')
      else
        local parts = { spack('>I7I7', rooted.turn, rooted.tat) }
        if left > 0 then
          for priority, turn in pairs(rooted.turns) do parts[#parts + 1] = spack('>I2I7', priority, turn) end
        end
        call('HSET', groups, '', table.concat(parts))
      end
    end
  end
end
