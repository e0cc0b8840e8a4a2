-- Groups. Needs: base, meta, record, ready, `grouped`, KEYS lines ring groups opens. Functions only where `grouped`.
--
-- A ready job with a group is not in ready or prio: its member of `lines` is priority 2 (32767 less it), size of
-- group 2, group, position 7, weight 1, id; all have one score. Each line, of one group and priority, has a turn: its
-- member of `ring` is priority 2 (as above), turn 7, group. A line that begins, and one that has taken its turn, gets
-- the highest turn. `groups` is group -> running 4, tat 7, parked 1, and for each line place 9 (what its member of
-- `ring` begins with), left 1 (of the turn that it has begun; 0: it has not), size of head 2, head. The field '' is
-- turn 7 (the last given), tat 7 (of the queue), and for each priority whose jobs without a group have taken a turn:
-- priority 2, turn 7.
-- The head of a line is a copy of its first few members, or of none: size 2, and what follows the group. It spares a
-- claim, which has to read and write the group in any case, the search for them, which would be a third of what a job
-- of a group costs. Whoever changes a line elsewhere than at its back drops the copy.
-- A parked group, one that was found to be at its limit, has no member in ring; in `opens` it has the instant at
-- which its rate opens, or inf: when a run of it ends. Its lines keep their turns. A group that is idle while its rate is
-- not open has minus the instant at which it will be. Of others nothing is kept.
-- What a call changes in `groups`, `ring` and `opens` is written at its end, by save_groups.
local group_of, place_line, reweigh, leave_line, leave_lines, end_run, group_at, fetch_groups, root, next_turn, save_groups
local turns = {} -- what only claims need: a script has no more than 200 locals
if grouped then
  local GROUP, LINE, PLACE, HEAD = 12, 12, 9, 12
  local NO_ROOT = string.rep('\0', 14)
  local began = tick -- positions that are larger are behind all that were given before
  local touched, used, rooted, woken = {}, false, nil, false
  local changed = {} -- what save_groups writes, by name
  local ended, placed = {}, {} -- runs that have ended, by group; members to add to lines
  local left = {} -- members to take out of ring
  local sizes = {} -- as text

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
    local group = { name = name, running = 0, tat = 0, parked = false, filed = false, lines = nil }
    if data and #data >= GROUP then
      local running, tat, parked = sunpack('>I4I7B', data)
      parked = parked == 1
      group.running, group.tat, group.parked = running, tat, parked
      group.filed = parked or (#data == GROUP and running == 0) -- whether it is in opens
      local at = GROUP + 1
      while at + LINE - 1 <= #data do
        local place = sub(data, at, at + PLACE - 1)
        local left, size, from = sunpack('>BI2', data, at + PLACE)
        at = from + size
        -- `ringed`: the place that it has in ring
        local line = { place = place, left = left, head = sub(data, from, at - 1), ringed = not parked and place }
        local priority = sunpack('>I2', place)
        if group.lines then group.lines[priority] = line else group.lines = { [priority] = line } end
      end
    end
    group.lines = group.lines or {}
    touched[name], used = group, true
    return group
  end

  -- A group, which may be changed until the next save; its data if they were read.
  function group_at(name, data)
    local group = touched[name]
    if not group then
      if data == nil then data = call('HGET', groups, name) end
      group = read(name, data)
    end
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

  -- Wake an idle worker when all is written.
  function turns.wake() woken = true end

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
    local line = group.lines[priority]
    if not line then
      group.lines[priority] = { place = spack('>I2I7', priority, next_turn()), left = 0, head = '', ringed = false }
    elseif job.mark <= began then
      line.head = ''
    end
    if not group.parked then woken = true end
  end

  local function is_empty(priority, name)
    local prefix = spack('>I2I2', priority, #name) .. name
    return #call('ZRANGEBYLEX', lines, '[' .. prefix, '(' .. prefix .. '\255', 'LIMIT', '0', '1') == 0
  end

  -- Read the head of a line, given what its members begin with: so many members at least, if there are so many. Returns
  -- it, and whether that is all of the line.
  function turns.read_head(prefix, most)
    local parts, from = {}, #prefix + 1
    most = math.max(most, HEAD)
    local low, high = '[' .. prefix, '(' .. prefix .. '\255'
    local found = call('ZRANGEBYLEX', lines, low, high, 'LIMIT', '0', string.format('%d', most))
    for i, member in ipairs(found) do
      local size = #member - from + 1
      if not sizes[size] then sizes[size] = spack('>I2', size) end
      parts[2 * i - 1], parts[2 * i] = sizes[size], sub(member, from)
    end
    return table.concat(parts), #found < most
  end

  -- Forget a line that has no more.
  local function drop_line(group, priority)
    local ringed = group.lines[priority].ringed
    if ringed then left[#left + 1] = ringed .. group.name end
    group.lines[priority] = nil
  end
  turns.drop_line = drop_line

  -- What a job weighs has changed, and nothing else of its place.
  function reweigh(old, job, id, name)
    write_placed()
    call('ZREM', lines, member_of(old, id, name))
    call('ZADD', lines, '0', member_of(job, id, name))
    local line = group_at(name).lines[32767 - priority_of(job)]
    if line then line.head = '' end
  end

  local function leave_member(member, priority, name)
    write_placed()
    call('ZREM', lines, member)
    local group = group_at(name)
    local line = group.lines[priority]
    if not line then return end
    line.head = ''
    if is_empty(priority, name) then drop_line(group, priority) end
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
  -- `after` without being taken apart, which would be half of what such a run costs; most begin alike.
  local function end_runs(after)
    local names, openings, n = {}, {}, 0
    for name in pairs(ended) do names[#names + 1] = name end
    for from = 1, #names, 1000 do
      local last = math.min(from + 999, #names)
      local found = call('HMGET', groups, unpack(names, from, last))
      for i = from, last do
        local name, data = names[i], found[i - from + 1]
        local count, opening = ended[name], false
        if data and #data >= GROUP and not touched[name] then
          local known = openings[count]
          if not known then
            known = {}
            openings[count] = known
          end
          local before = sub(data, 1, GROUP)
          opening = known[before]
          if opening == nil then
            local running, _, parked = sunpack('>I4I7B', data)
            opening = running >= count and parked == 0 and spack('>I4', running - count) .. sub(before, 5)
            known[before] = opening
          end
        end
        if opening and (#data > GROUP or sub(opening, 1, 4) ~= '\0\0\0\0') then
          n = n + 2
          after[n - 1], after[n] = name, opening .. sub(data, GROUP + 1)
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
    local after, entered = {}, {}
    local forgotten, filed, unfiled = {}, {}, {}
    end_runs(after)
    for name, group in pairs(changed) do
      local idle = group.running == 0 and not next(group.lines)
      local parked = group.parked and not idle
      local lapse = idle and math.ceil(group.tat / 1000) or 0
      local data = spack('>I4I7B', group.running, group.tat, parked and 1 or 0)
      for _, line in pairs(group.lines) do
        local place, ringed, head = line.place, line.ringed, line.head
        data = data .. place .. spack('>BI2', line.left, #head) .. head
        if ringed and (parked or ringed ~= place) then left[#left + 1] = ringed .. name end
        if not parked and ringed ~= place then
          entered[#entered + 1] = '0'
          entered[#entered + 1] = place .. name
        end
        line.ringed = not parked and place
      end
      if idle and lapse <= now then
        forgotten[#forgotten + 1] = name
      else
        after[#after + 1] = name
        after[#after + 1] = data
      end
      if lapse > now then
        filed[#filed + 1] = string.format(WHOLE, -lapse)
        filed[#filed + 1] = name
      elseif parked and group.until_ then
        filed[#filed + 1] = group.until_
        filed[#filed + 1] = name
      elseif group.filed and not parked then
        unfiled[#unfiled + 1] = name
      end
      group.parked, group.filed, group.until_ = parked, parked or lapse > now, nil
    end
    changed, touched = {}, {}
    write_placed()
    all('ZREM', ring, left)
    left = {}
    all('ZADD', ring, entered)
    all('HSET', groups, after)
    all('HDEL', groups, forgotten)
    all('ZADD', opens, filed)
    all('ZREM', opens, unfiled)
    woken = woken or #entered > 0
    if not last then return end
    if woken then wake() end
    if used or rooted then
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
