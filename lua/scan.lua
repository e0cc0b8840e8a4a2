#!lua flags=allow-oom
-- scan: one page of the jobs in one state.
--
-- KEYS: jobs running ready staged prio scheduled failing completed failed cancelled lines
-- ARGV: now state limit cursor
--   state   "Q" queued, "P" processing, "S" scheduled, "R" failing, "C", "F" or "X" ended
--   cursor  "" for the first page, else what the page before gave
-- Returns: {cursor of the next page or "", then for each job: id, record without payload, result,
--   headers and history}
-- Invariants: a job that stays in its place is listed exactly once: each order is by a fixed key of the
--   job, and the cursor is the key of the last one listed. (`set_ttl` moves an ended job in this order.)

-- include: base
local jobs, running, ready, staged, prio, scheduled, failing, completed, failed, cancelled, lines =
  KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7], KEYS[8], KEYS[9], KEYS[10], KEYS[11]
local state, limit, cursor = ARGV[2], tonumber(ARGV[3]), ARGV[4]
-- include: record
-- include: extras
-- include: search
-- include: order
-- include: packs

-- A cursor is a score (7 bytes, biased, since it may be negative) .. a member: the key of the last job listed.
local BIAS = 4503599627370496 -- 2^52
local from, behind -- the cursor
if cursor ~= '' then from, behind = sunpack('>I7', cursor) - BIAS, sub(cursor, 8) end

local answer, keys, bytes = { '' }, {}, 0
local function add(id, record, score, member)
  if record and sound(record) then
    local job = parse(record)
    if expired(record) and kept_until(job) <= now then return end
    job.payload, job.waiters = '', ''
    if job.extras ~= '' then list_extras(job) end
    if job.state == 'C' then job.data = nil end
    answer[#answer + 1] = id
    answer[#answer + 1] = build(job)
    bytes = bytes + #answer[#answer]
    keys[#keys + 1] = spack('>I7', BIAS + score) .. member
  end
end
-- One more than the page holds tells whether there is another page.
local function full() return #keys > limit or (bytes > BUDGET and #keys > 1) end

-- List the members with a score from `low` (if not nil) to below `high`; `id_at` is where in a member its id begins.
local function list_set(key, id_at, low, high)
  local rank = 0
  if from and (not low or from >= low) then
    rank = rank_behind(key, from, behind)
  elseif low then
    rank = call('ZCOUNT', key, '-inf', '(' .. string.format(WHOLE, low))
  end
  while not full() do
    local one = call('ZRANGE', key, rank, rank + 63, 'WITHSCORES')
    if #one == 0 then return end
    for i = 1, #one, 2 do
      local member, score = one[i], tonumber(one[i + 1])
      if score >= high or full() then return end
      local id = sub(member, id_at)
      local record = call('HGET', jobs, id)
      if record then add(id, record, score, member) end
    end
    rank = rank + 64
  end
end

-- Completed jobs, by expiry, then by id.
local function list_completed()
  local least = now + 1 -- what has expired may be much, and is not listed
  if from and from > least then least = from end
  while not full() do
    local one = call('ZRANGEBYSCORE', completed, string.format(WHOLE, least), '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
    if #one == 0 then return end
    local ids, expires = {}, tonumber(one[2])
    for _, pack in ipairs(call('ZRANGEBYSCORE', completed, one[2], one[2])) do open_pack(pack, ids) end
    table.sort(ids, precedes)
    for _, id in ipairs(ids) do
      if not full() and (expires ~= from or precedes(behind, id)) then
        local record = call('HGET', jobs, id)
        if record then add(id, record, expires, id) end
      end
    end
    least = expires + 1
  end
end

local function list_ready()
  local at = 0
  if from == 0 then at = lower_bound(sunpack('>I7', behind) + 1) end
  while not full() do
    local window = call('LRANGE', ready, at, at + 63)
    if #window == 0 then return end
    for i = 1, #window do
      local element = window[i]
      if element ~= '' and not full() then add(sub(element, 8), call('HGET', jobs, sub(element, 8)), 0, element) end
    end
    at = at + 64
  end
end

-- Jobs of groups, by priority, group and place. Their scores are all 2^51 in a cursor, so that they follow all others.
local LINES = 2251799813685248
local function list_lines()
  local low = from == LINES and '(' .. behind or '-'
  while not full() do
    local page = call('ZRANGEBYLEX', lines, low, '+', 'LIMIT', 0, 64)
    if #page == 0 then return end
    for _, member in ipairs(page) do
      if full() then return end
      local id = sub(member, 13 + sunpack('>I2', member, 3))
      local record = call('HGET', jobs, id)
      if record then add(id, record, LINES, member) end
      low = '(' .. member
    end
  end
end

local function list_running()
  local list, all = {}, call('HGETALL', running)
  for i = 1, #all, 2 do
    local fence = sound(all[i + 1]) and sunpack('>I7', all[i + 1], FENCE) or 0
    if not from or fence > from then list[#list + 1] = { fence, all[i], all[i + 1] } end
  end
  table.sort(list, function(a, b) return a[1] < b[1] end)
  for _, one in ipairs(list) do
    if full() then return end
    add(one[2], one[3], one[1], '')
  end
end

if state == 'Q' then
  -- Priorities above 0, then 0, then below: minus the priority is the score.
  while call('LMOVE', staged, ready, 'RIGHT', 'LEFT') do end
  if not from or from < 0 then list_set(prio, 8, nil, 0) end
  if not full() and (not from or from <= 0) then list_ready() end
  if not full() and (not from or from < LINES) then list_set(prio, 8, 1, math.huge) end
  if not full() then list_lines() end
elseif state == 'P' then
  list_running()
elseif state == 'S' or state == 'R' then
  list_set(state == 'S' and scheduled or failing, 8, nil, math.huge)
elseif state == 'C' then
  list_completed()
else
  list_set(state == 'F' and failed or cancelled, 1, now + 1, math.huge)
end
if full() then
  answer[1] = keys[#keys - 1]
  answer[#answer], answer[#answer - 1] = nil, nil
end
return answer
