#!lua flags=allow-oom
-- scan: one page of the jobs in one state.
--
-- KEYS: jobs running ready staged prio scheduled failing completed failed cancelled
-- ARGV: now state limit cursor
--   state   "Q" queued, "P" processing, "S" scheduled, "R" failing, "C", "F" or "X" ended
--   cursor  "" for the first page, else what the page before gave
-- Returns: {cursor of the next page or "", then for each job: id, record without payload and result}
-- Invariants: a job that stays in its place is listed exactly once: each order is by a fixed key of the
--   job, and the cursor is the key of the last one listed. (`keep` moves an ended job in this order.)

-- include: base
local jobs, running, ready, staged, prio, scheduled, failing, completed, failed, cancelled =
  KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7], KEYS[8], KEYS[9], KEYS[10]
local state, limit, cursor = ARGV[2], tonumber(ARGV[3]), ARGV[4]
-- include: record
-- include: search
-- include: packs

local BIAS = 4503599627370496 -- 2^52, so that negative scores sort as bytes too

local answer, keys = { '' }, {}
local function add(id, record, key)
  if record then
    local job = parse(record)
    job.payload = ''
    if job.state == 'C' then job.data = nil end
    answer[#answer + 1] = id
    answer[#answer + 1] = build(job)
    keys[#keys + 1] = key
  end
end
-- One more than asked for tells whether there is another page.
local function full() return #keys > limit end

-- A cursor into a sorted set is score (8 bytes, biased to sort) .. member; find the rank behind it.
local function rank_behind(key, at)
  local low, high = 0, call('ZCARD', key)
  while low < high do
    local middle = math.floor((low + high) / 2)
    local one = call('ZRANGE', key, middle, middle, 'WITHSCORES')
    if spack('>I7', BIAS + one[2]) .. one[1] <= at then low = middle + 1 else high = middle end
  end
  return low
end
local function list_set(key, from, to, source, id_at)
  local rank = from == '' and 0 or rank_behind(key, from)
  while not full() do
    local one = call('ZRANGE', key, rank, rank + 63, 'WITHSCORES')
    if #one == 0 then return end
    for i = 1, #one, 2 do
      local member, score = one[i], tonumber(one[i + 1])
      if score >= to or full() then return end
      local record = call('HGET', source, sub(member, id_at))
      if record and not expired(record) then
        add(sub(member, id_at), record, spack('>I7', BIAS + score) .. member)
      end
    end
    rank = rank + 64
  end
end

-- Completed jobs, by expiry, then by id: a cursor is expiry .. id.
local function list_completed()
  local from = cursor == '' and now or math.max(now, sunpack('>I7', cursor) - BIAS)
  from = string.format(from > now and '%.0f' or '(%.0f', from) -- what has expired may be much, and is not listed
  while not full() do
    local one = call('ZRANGEBYSCORE', completed, from, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
    if #one == 0 then return end
    local ids, expires = {}, spack('>I7', BIAS + one[2])
    for _, pack in ipairs(call('ZRANGEBYSCORE', completed, one[2], one[2])) do open_pack(pack, ids) end
    table.sort(ids)
    for _, id in ipairs(ids) do
      if expires .. id > cursor and not full() then
        local record = call('HGET', jobs, id)
        if record and not expired(record) then add(id, record, expires .. id) end
      end
    end
    from = '(' .. one[2]
  end
end

if state == 'Q' then
  while call('LMOVE', staged, ready, 'RIGHT', 'LEFT') do end
  local zero = spack('>I7', BIAS)
  if cursor < zero then list_set(prio, cursor, 0, jobs, 8) end
  if not full() and sub(cursor, 1, 7) <= zero then
    local at = 0
    if sub(cursor, 1, 7) == zero then at = lower_bound(sub(cursor, 8) .. '\0') end
    while not full() do
      local window = call('LRANGE', ready, at, at + 63)
      if #window == 0 then break end
      for i = 1, #window do
        if window[i] ~= '' and not full() then
          add(sub(window[i], 8), call('HGET', jobs, sub(window[i], 8)), zero .. window[i])
        end
      end
      at = at + 64
    end
  end
  if not full() then
    list_set(prio, cursor > zero .. '\255' and cursor or zero .. '\255', math.huge, jobs, 8)
  end
elseif state == 'P' then
  local list, all = {}, call('HGETALL', running)
  for i = 1, #all, 2 do
    local fence = sub(all[i + 1], 24, 30)
    if fence > cursor then list[#list + 1] = { fence, all[i], all[i + 1] } end
  end
  table.sort(list, function(a, b) return a[1] < b[1] end)
  for i = 1, math.min(limit + 1, #list) do add(list[i][2], list[i][3], list[i][1]) end
elseif state == 'S' or state == 'R' then
  list_set(state == 'S' and scheduled or failing, cursor, math.huge, jobs, 8)
elseif state == 'C' then
  list_completed()
else
  local expired_yet = spack('>I7', BIAS + now) .. '\255' -- behind all of them: no id begins so
  list_set(state == 'F' and failed or cancelled, cursor > expired_yet and cursor or expired_yet, math.huge, jobs, 1)
end
if full() then
  answer[1] = keys[limit]
  answer[#answer], answer[#answer - 1] = nil, nil
end
return answer
