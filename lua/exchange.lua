#!lua flags=allow-oom
-- exchange: hand in finished runs, promote what is due, claim jobs. Never blocks.
--
-- KEYS: jobs running lease ready staged prio scheduled failing completed failed cancelled workers meta
-- ARGV: now worker nonce limit lease_ms channel queue, then for each settlement: id head data
--   nonce    6 bytes that name the call; a repeated call gets the answer of the first
--   channel  what precedes an address in the name of its pub/sub channel
--   head     action 1 ("c" complete, "f" fail, "r" retry, "l" release, "x" cancel), fence 7, ttl 6, delay 6
-- Returns: {named, one status per settlement, ms until the next due job or -1, then for each claimed job:
--   id, its record before the claim, fence}
--   status   "A" accepted, "X" ended as cancelled, "L" lost
-- Invariants: a settlement writes only if its fence is that of the running record; a settled job leaves
--   the lease index first, a write that needs no memory; what is claimed gets a new, larger fence and is in
--   lease and running when it has left ready; no step touches more than PROMOTE + limit + settlements jobs.

-- include: base
local jobs, running, lease, ready, staged, prio, scheduled, failing, completed, failed, cancelled, workers, meta =
  KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7], KEYS[8], KEYS[9], KEYS[10], KEYS[11],
  KEYS[12], KEYS[13]
local worker, nonce, limit, lease_ms, channel, queue =
  ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5]), ARGV[6], ARGV[7]
-- include: meta
-- include: record
-- include: ready
-- include: ended
-- include: settle
-- include: promote

local HEAD, PROMOTE, CHUNK, MOST_BYTES = 20, 1000, 128, 8388608
local count = (#ARGV - 7) / 3
local ids = {}
for i = 1, count do
  ids[i] = ARGV[5 + 3 * i]
  if #ARGV[6 + 3 * i] ~= HEAD then return redis.error_reply('ERR exchange: bad head') end
end

-- A repeated call: answer from what the first one noted with the worker. seen 6, nonce 6, first fence 7,
-- claimed 2, statuses.
local last = call('HGET', workers, worker)
if last and sub(last, 7, 12) == nonce then
  local due = next_due()
  local answer = { counters[3] or '', sub(last, 22), due and string.format('%.0f', math.max(0, due - now)) or -1 }
  local from, claimed = sunpack('>I7I2', last, 13)
  if claimed > 0 then
    local pairs_ = call('HGETALL', running)
    local again = {}
    for i = 1, #pairs_, 2 do
      local fence = sunpack('>I7', pairs_[i + 1], 10)
      if fence >= from and fence < from + claimed then again[#again + 1] = { fence, pairs_[i] } end
    end
    table.sort(again, function(a, b) return a[1] < b[1] end)
    for _, job in ipairs(again) do
      answer[#answer + 1] = job[2]
      answer[#answer + 1] = call('HGET', jobs, job[2])
      answer[#answer + 1] = string.format('%.0f', job[1])
    end
  end
  return answer
end

-- 1. Settlements. Plain completions, nearly all of them, are collected and written together.
local status = {}
if count > 0 then
  local hot = call('HMGET', running, unpack(ids))
  local done, fields, expiry = {}, {}, {}
  local slow, seen = {}, {}
  local nothing = spack('>I3I4', 0, 0)
  for i = 1, count do
    local id, head, data, record = ids[i], ARGV[6 + 3 * i], ARGV[7 + 3 * i], hot[i]
    local again = seen[id] -- a second settlement of one job has to see what the first did
    seen[id] = true
    if byte(head) == 99 and record and not again and sub(record, 10, 16) == sub(head, 2, 8)
      and byte(record, 30) == 0 then
      local ttl = sunpack('>I6', head, 9)
      local expires = now + ttl
      local n = #done + 1
      done[n] = id
      expiry[2 * n - 1], expiry[2 * n] = expires, id
      local progress, waiters = '', sunpack('>I3', record, 74)
      if sub(record, 74, 80) ~= nothing then
        local size = sunpack('>I4', record, 77)
        if size > 0 then progress = sub(record, 87 + waiters, 85 + waiters + size) end
        if waiters > 0 then
          post_reply(sub(record, 87, 86 + waiters), id, sub(record, 55, 61), 'C', sub(record, 2, 5), data)
        end
        progress = spack('>I3', 0) .. sub(record, 77, 80) .. spack('>I4I2', #data + 1, 0) .. progress
      else
        progress = nothing .. spack('>I4I2', #data + 1, 0)
      end
      fields[2 * n - 1] = id
      fields[2 * n] = 'C' .. sub(record, 2, 16) .. spack('>I6I7B', now, expires, 0)
        .. sub(record, 31, 73) .. progress .. data
      status[i] = 'A'
    else
      slow[#slow + 1] = i
    end
  end
  if #done > 0 then
    call('ZREM', lease, unpack(done))
    call('HDEL', running, unpack(done))
    call('HSET', jobs, unpack(fields))
    call('ZADD', completed, unpack(expiry))
  end
  for _, i in ipairs(slow) do
    local id, head, data = ids[i], ARGV[6 + 3 * i], ARGV[7 + 3 * i]
    local fence, ttl, delay = sunpack('>I7I6I6', head, 2)
    local record = call('HGET', running, id)
    if record then
      local job = parse(record)
      status[i] = job.fence == fence and settle(id, job, sub(head, 1, 1), data, ttl, delay) or 'L'
    else
      record = call('HGET', jobs, id)
      local state = record and not expired(record) and sub(record, 1, 1)
      local held = state and ((state == 'q' or state == 's') and 0 or sunpack('>I7', record, 10))
      status[i] = held ~= fence and 'L' or state == 'X' and 'X' or 'A'
    end
  end
end
if #released > 0 then
  put_front(released)
  local fields = {}
  for i, job in ipairs(released) do
    fields[2 * i - 1], fields[2 * i] = job.id, build(job)
  end
  call('HSET', jobs, unpack(fields))
else
  unstage()
end

-- 2. Promotion.
local due = next_due()
if limit > 0 and due and due <= now then
  promote(PROMOTE)
  due = next_due()
end

-- 3. Claims, highest priority first.
local answer = { counters[3] or '', '', due and string.format('%.0f', math.max(0, due - now)) or -1 }
local first_fence, claimed, bytes = tick + 1, 0, 0
local others = call('ZCARD', prio)

local opening = spack('>I4I4', 1, 0)
local middle = spack('>I6I7B', now, now + lease_ms, 0)
local closing = spack('>I4I4I2', 0, 0, #worker)

local function claim(elements)
  local names = {}
  for i = 1, #elements do
    if elements[i] == '' then
      blanks = blanks - 1
    else
      names[#names + 1] = sub(elements[i], 8)
    end
  end
  if #names == 0 then return end
  local records = call('HMGET', jobs, unpack(names))
  local fields, leases = {}, {}
  for i = 1, #names do
    local id, record = names[i], records[i]
    if record then
      tick = tick + 1
      local state, hot = byte(record), nil
      if state == 113 then -- "q": never claimed before
        local size = sunpack('>I3', record, 45)
        hot = 'P' .. opening .. spack('>I7', tick) .. middle .. sub(record, 2, 47) .. closing
          .. sub(record, 48, 47 + size) .. worker
        bytes = bytes + #record
      else
        local job = parse(record)
        bytes = bytes + #job.payload
        job.state, job.fence, job.updated, job.mark, job.cancelling = 'P', tick, now, now + lease_ms, 0
        job.attempts, job.worker, job.progress, job.payload = job.attempts + 1, worker, nil, ''
        hot = build(job)
      end
      fields[#fields + 1] = id
      fields[#fields + 1] = hot
      leases[#leases + 1] = now + lease_ms
      leases[#leases + 1] = id
      answer[#answer + 1] = id
      answer[#answer + 1] = record
      answer[#answer + 1] = string.format('%.0f', tick)
      claimed = claimed + 1
    end
  end
  if #fields > 0 then
    call('HSET', running, unpack(fields))
    call('ZADD', lease, unpack(leases))
  end
end

local function claim_others(low, high)
  while claimed < limit and bytes < MOST_BYTES do
    local elements = call('ZRANGEBYSCORE', prio, low, high, 'LIMIT', 0, math.min(CHUNK, limit - claimed))
    if #elements == 0 then return end
    call('ZREM', prio, unpack(elements))
    claim(elements)
  end
end

if others > 0 then claim_others('-inf', '(0') end
while claimed < limit and bytes < MOST_BYTES do
  local elements = call('LPOP', ready, math.min(CHUNK, limit - claimed))
  if not elements then break end
  claim(elements)
end
if others > 0 then
  claim_others('(0', '+inf')
  if call('ZCARD', prio) > 0 then wake() end
end
if retried and due and due >= retried then wake() end

publish()
answer[2] = table.concat(status)
call('HSET', workers, worker, spack('>I6', now) .. nonce .. spack('>I7I2', first_fence, claimed) .. answer[2])
save_meta()
return answer
