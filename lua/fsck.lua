#!lua flags=no-writes,allow-oom
-- fsck: check that records and indexes say the same, a page at a time.
--
-- KEYS: jobs running ready staged prio scheduled failing completed failed cancelled meta lines ring groups opens expiring
-- ARGV: now source cursor
--   source  the name of the key whose entries are checked, or "totals"
--   cursor  "0" for the first page, else what the page before gave
-- Returns: {cursor of the next page or "0", then for each breach: id or "", what is wrong}
-- Invariants: reads only; each page is one moment, so that a live queue can be checked.

-- include: base
local jobs, running, ready, staged, prio, scheduled, failing, completed, failed, cancelled, meta, lines, ring, groups, opens, expiring =
  KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7], KEYS[8], KEYS[9], KEYS[10], KEYS[11], KEYS[12],
  KEYS[13], KEYS[14], KEYS[15], KEYS[16]
local source, cursor = ARGV[2], ARGV[3]
local caller = ''
-- include: meta
-- include: record
-- include: extras
-- include: ready
-- include: search
-- include: packs
-- include: count

local PAGE = 200
local PACKS = 16
local answer = { '0' }
local function breach(id, text)
  answer[#answer + 1] = id
  answer[#answer + 1] = text
end

local function group_of(extras)
  return byte(extras, 1) == 103 and sub(extras, 6, 5 + sunpack('>I4', extras, 2)) or nil
end

local function weight_of(extras)
  local at = 6 + sunpack('>I4', extras, 2)
  return byte(extras, at) == 119 and byte(extras, at + 5) or 1
end

local function in_list(position, element)
  local _, found = lower_bound(position)
  if found == element then return true end
  for _, moved in ipairs(call('LRANGE', staged, 0, -1)) do
    if moved == element then return true end
  end
  return false
end

local function in_pack(id, expires)
  expires = string.format(WHOLE, expires)
  for _, pack in ipairs(call('ZRANGEBYSCORE', completed, expires, expires)) do
    if string.find('\n' .. pack .. '\n', '\n' .. id .. '\n', 1, true) then return true end
  end
  return false
end

-- Where an id is indexed, as a set of names; and the scores. `filed`: the score of a pack that it was seen in.
local function places(id, job, filed)
  local there, scores = {}, {}
  local function set(name, key, member)
    local score = call('ZSCORE', key, member)
    if score then there[name], scores[name] = true, tonumber(score) end
  end
  set('failed', failed, id)
  set('cancelled', cancelled, id)
  if job and not filed and in_pack(id, job.mark) then filed = job.mark end
  there.completed, scores.completed = filed and true, filed
  if job then
    set('scheduled', scheduled, seq_of(job) .. id)
    set('failing', failing, seq_of(job) .. id)
    local element = spack('>I7', job.mark) .. id
    if job.state == 'Q' then
      local group = group_of(job.extras)
      if group then
        set('ready', lines, spack('>I2I2', 32767 - priority_of(job), #group) .. group
          .. spack('>I7', job.mark) .. string.char(weight_of(job.extras)) .. id)
      elseif priority_of(job) == 0 then
        there.ready = in_list(job.mark, element) or nil
      else
        set('ready', prio, element)
      end
    end
  end
  return there, scores
end

local expected = {
  Q = 'ready', S = 'scheduled', R = 'failing', P = 'running', C = 'completed', F = 'failed', X = 'cancelled',
}

local function check(id, filed)
  local record, live = call('HGET', jobs, id), call('HGET', running, id)
  if not record then
    breach(id, (live and 'runs' or 'is indexed') .. ' but has no record')
    return
  end
  local job = sound(live or record) and parse(live or record)
  if not job or (live and job.state ~= 'P') then
    breach(id, 'has a record that cannot be read')
    return
  end
  local there, scores = places(id, job, filed)
  if live then there.running = true end
  local name = expected[job.state]
  for found in pairs(there) do
    if found ~= name then breach(id, 'is ' .. job.state .. ' and in the index ' .. found) end
  end
  if not there[name] then
    breach(id, 'is ' .. job.state .. ' and not in the index ' .. name)
  elseif scores[name] and name ~= 'ready' then
    local due = sunpack('>I6', job.core, CORE_DUE)
    local right = (name == 'scheduled' or name == 'failing') and due or kept_until(job)
    if scores[name] ~= right then breach(id, 'has another time in its record than in the index ' .. name) end
  end
  local time, timed = start_before(job), tonumber(call('ZSCORE', expiring, seq_of(job) .. id) or nil)
  if time and not timed then
    breach(id, 'has to start in time and is not in the index expiring')
  elseif timed and not time then
    breach(id, 'is in the index expiring, and need not start in time')
  elseif time ~= timed then
    breach(id, 'has another time in its record than in the index expiring')
  end
  if job.fence > tick or sunpack('>I7', job.core, CORE_SEQ) > tick then
    breach(id, 'has a fence or seq that was not given yet')
  end
end

-- The place and the head of each line of a group, see lib/groups.lua; nil if they cannot be read.
local function lines_of(data)
  local found, at = {}, 13
  while at + 11 <= #data do
    local line, behind, size = { place = sub(data, at, at + 8), head = {} }, nil, nil
    size, at = sunpack('>I2', data, at + 10)
    behind = at + size
    if behind > #data + 1 then return nil end
    while at + 1 < behind do
      size, at = sunpack('>I2', data, at)
      line.head[#line.head + 1] = sub(data, at, at + size - 1)
      at = at + size
    end
    if at ~= behind then return nil end
    found[#found + 1] = line
  end
  return at == #data + 1 and found or nil
end

-- What is known of a group: how many of its jobs run, and where its lines stand.
local runs -- by group
local function check_group(name, data)
  if name == '' then return end
  local known = lines_of(data)
  if not known then return breach('', 'what is known of the group ' .. name .. ' cannot be read') end
  if not runs then
    runs = {}
    for _, record in ipairs(call('HVALS', running)) do
      local group = sound(record) and group_of(parse(record).extras)
      if group then runs[group] = (runs[group] or 0) + 1 end
    end
  end
  local count, _, parked = sunpack('>I4I7B', data)
  if count ~= (runs[name] or 0) then
    breach('', 'the group ' .. name .. ' counts ' .. count .. ' running jobs, and has ' .. (runs[name] or 0))
  end
  local score = call('ZSCORE', opens, name)
  if parked == 1 and not score then breach('', 'the group ' .. name .. ' waits, and nothing says for what') end
  for _, line in ipairs(known) do
    if (parked == 1) == (call('ZSCORE', ring, line.place .. name) and true or false) then
      breach('', 'a turn of the group ' .. name .. (parked == 1 and ' is not to come yet' or ' is missing'))
    end
    local prefix = sub(line.place, 1, 2) .. spack('>I2', #name) .. name
    local first = call('ZRANGEBYLEX', lines, '[' .. prefix, '(' .. prefix .. '\255', 'LIMIT', 0, #line.head)
    for i, member in ipairs(line.head) do
      if first[i] ~= prefix .. member then
        breach('', 'the next jobs of the group ' .. name .. ' are others than is known of it')
        break
      end
    end
  end
end

if source == 'totals' then
  local indexed = ready_count() + call('HLEN', running)
  for _, key in ipairs({ scheduled, failing, failed, cancelled }) do indexed = indexed + call('ZCARD', key) end
  indexed = indexed + count_ids(call('ZCARD', completed))
  local records = call('HLEN', jobs)
  if indexed ~= records then breach('', indexed .. ' jobs are indexed, but there are ' .. records .. ' records') end
  local first = call('ZRANGE', lines, 0, 0)[1]
  if first and call('HLEN', groups) < 2 then breach('', 'jobs of groups are ready, but the groups are not known') end
  if call('ZCARD', prio) > 0 and call('LLEN', ready) + call('LLEN', staged) == 0 then
    breach('', 'prioritised jobs are ready, but nothing wakes a worker for them')
  end
elseif source == 'lines' then
  local page = call('ZSCAN', lines, cursor, 'COUNT', PAGE)
  answer[1] = page[1]
  for i = 1, #page[2], 2 do
    local member = page[2][i]
    check(sub(member, 13 + sunpack('>I2', member, 3)))
  end
elseif source == 'groups' then
  local page = call('HSCAN', groups, cursor, 'COUNT', PAGE)
  answer[1] = page[1]
  for i = 1, #page[2], 2 do check_group(page[2][i], page[2][i + 1]) end
elseif source == 'jobs' or source == 'running' then
  local page = call('HSCAN', source == 'jobs' and jobs or running, cursor, 'COUNT', PAGE)
  answer[1] = page[1]
  for i = 1, #page[2], 2 do check(page[2][i]) end
elseif source == 'ready' then
  local page = call('LRANGE', ready, cursor, cursor + PAGE - 1)
  for i = 1, #page do
    if page[i] ~= '' then check(sub(page[i], 8)) end
  end
  if #page == PAGE then answer[1] = string.format(WHOLE, cursor + PAGE) end
elseif source == 'completed' then
  local page = call('ZSCAN', completed, cursor, 'COUNT', PACKS)
  answer[1] = page[1]
  for i = 1, #page[2], 2 do
    local ids = {}
    open_pack(page[2][i], ids)
    for _, id in ipairs(ids) do check(id, tonumber(page[2][i + 1])) end
  end
else
  local sets = {
    failed = { failed, 1 }, cancelled = { cancelled, 1 },
    prio = { prio, 8 }, scheduled = { scheduled, 8 }, failing = { failing, 8 }, expiring = { expiring, 8 },
  }
  local key, from = sets[source][1], sets[source][2]
  local page = call('ZSCAN', key, cursor, 'COUNT', PAGE)
  answer[1] = page[1]
  for i = 1, #page[2], 2 do
    check(sub(page[2][i], from))
  end
end
return answer
