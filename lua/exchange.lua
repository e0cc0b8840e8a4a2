#!lua flags=allow-oom
-- exchange: hand in finished runs, promote what is due, claim jobs. Never blocks.
--
-- KEYS: jobs running ready staged prio scheduled failing completed failed cancelled workers meta
-- ARGV: now worker nonce limit lease_ms channel queue runs fences, then the ids, then the data
--   nonce    6 bytes that name the call; a repeated call gets the answer of the first
--   channel  what precedes an address in the name of its pub/sub channel
--   runs     for each run of settlements alike: how many 2, action 1 ("c" complete, "f" fail, "r" retry,
--            "l" release, "x" cancel), ttl 6, delay 6
--   fences   7 bytes per settlement
-- Returns: {named, one status per settlement, ms until the next due job or -1, fences of the claimed jobs (7
--   bytes each), then for each of them: id, its record before the claim}
--   status   "A" accepted, "X" ended as cancelled, "L" lost
-- Invariants: a settlement writes only if its fence is that of the running record; a settled job leaves
--   running first, a write that needs no memory; what is claimed gets a new, larger fence and is in
--   running when it has left ready; no step touches more than PROMOTE + limit + settlements jobs.

-- include: base
local jobs, running, ready, staged, prio, scheduled, failing, completed, failed, cancelled, workers, meta =
  KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7], KEYS[8], KEYS[9], KEYS[10], KEYS[11],
  KEYS[12]
local worker, nonce, limit, lease_ms, channel, queue =
  ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5]), ARGV[6], ARGV[7]
local runs, fences = ARGV[8], ARGV[9]
-- include: meta
-- include: record
-- include: ready
-- include: ended
-- include: packs
-- include: settle
-- include: promote

local RUN, FIXED, PROMOTE, CHUNK, MOST_BYTES = 15, 9, 1000, 128, 8388608
local count = (#ARGV - FIXED) / 2
if #runs % RUN ~= 0 or #fences ~= 7 * count or #nonce ~= 6 then
  return redis.error_reply('ERR exchange: bad arguments')
end

-- A repeated call: answer from what the first one noted with the worker. seen 6, nonce 6, first fence 7,
-- claimed 2, statuses.
local noted = call('HGET', workers, worker)
if noted and sub(noted, 7, 12) == nonce then
  local due = next_due()
  local answer = { counters[3] or '', sub(noted, 22), due and string.format('%.0f', math.max(0, due - now)) or -1, '' }
  local from, claims = sunpack('>I7I2', noted, 13)
  if claims > 0 then
    local all, again = call('HGETALL', running), {}
    for i = 1, #all, 2 do
      local fence = sunpack('>I7', all[i + 1], 24)
      if fence >= from and fence < from + claims then again[#again + 1] = { fence, all[i] } end
    end
    table.sort(again, function(a, b) return a[1] < b[1] end)
    for _, job in ipairs(again) do
      answer[4] = answer[4] .. spack('>I7', job[1])
      answer[#answer + 1] = job[2]
      answer[#answer + 1] = call('HGET', jobs, job[2])
    end
  end
  return answer
end

-- 1. Settlements. Plain completions, nearly all of them, are collected and written together.
local status, slow = {}, {}
if count > 0 then
  local hot = call('HMGET', running, unpack(ARGV, FIXED + 1, FIXED + count))
  local done, fields, n = {}, {}, 0
  local packs = {} -- expiry and number of its last job in `done`, in turns
  local seen, tails = {}, {}
  local nothing = spack('>I3I4', 0, 0)
  local i = 0
  for at = 1, #runs, RUN do
    local plain, ttl = byte(runs, at + 2) == 99, sunpack('>I6', runs, at + 3)
    local opening = 'C' .. spack('>BI6I7', 0, now, now + ttl)
    for _ = 1, (sunpack('>I2', runs, at)) do
      i = i + 1
      local id, record = ARGV[FIXED + i], hot[i]
      local flags = record and byte(record, 2)
      -- A second settlement of one job has to see what the first did.
      if plain and (flags == 0 or flags == 2) and not seen[id]
        and sub(record, 24, 30) == sub(fences, 7 * i - 6, 7 * i) then
        local data = ARGV[FIXED + count + i]
        local tail = tails[#data]
        if not tail then
          tail = spack('>I4I2', #data + 1, 0)
          tails[#data] = tail
        end
        n = n + 1
        done[n] = id
        fields[2 * n - 1] = id
        if flags == 0 then
          fields[2 * n] = opening .. sub(record, 16, 80) .. tail .. data
        else
          fields[2 * n] = opening .. sub(record, 16, 73) .. nothing .. tail .. data
          local size = sunpack('>I3', record, 74)
          post_reply(sub(record, 87, 86 + size), id, sub(record, 67, 73), 'C', sub(record, 16, 19), data)
        end
        status[i] = 'A'
      else
        slow[#slow + 1] = { i, at }
      end
      seen[id] = true
    end
    packs[#packs + 1] = now + ttl
    packs[#packs + 1] = n
  end
  if i ~= count then return redis.error_reply('ERR exchange: bad runs') end
  if n > 0 then
    call('HDEL', running, unpack(done))
    call('HSET', jobs, unpack(fields))
    local filed = 0
    for at = 1, #packs, 2 do
      file(string.format('%.0f', packs[at]), done, filed + 1, packs[at + 1])
      filed = packs[at + 1]
    end
    ended_ever = ended_ever + n
  end
end
for _, place in ipairs(slow) do
  local i, at = place[1], place[2]
  local id, fence = ARGV[FIXED + i], sunpack('>I7', fences, 7 * i - 6)
  local record = call('HGET', running, id)
  if record then
    local job = parse(record)
    if job.fence == fence then
      local ttl, delay = sunpack('>I6I6', runs, at + 3)
      status[i] = settle(id, job, sub(runs, at + 2, at + 2), ARGV[FIXED + count + i], ttl, delay)
    else
      status[i] = 'L'
    end
  elseif released[id] then
    status[i] = released[id] == fence and 'A' or 'L'
  else
    record = call('HGET', jobs, id)
    local held = record and not expired(record) and parse(record)
    status[i] = (not held or held.fence ~= fence) and 'L' or held.state == 'X' and 'X' or 'A'
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
local answer, given = { counters[3] or '', '', due and string.format('%.0f', math.max(0, due - now)) or -1, '' }, {}
local first_fence, claimed, bytes = tick + 1, 0, 0
local until_ = now + lease_ms
local opening = { [113] = 'P' .. spack('>BI6I7I4I4', 0, now, until_, 1, 0) }
opening[119] = 'P' .. spack('>BI6I7I4I4', 2, now, until_, 1, 0)
local closing = spack('>I4I4I2', 0, 0, #worker)

local function claim(elements)
  local names, n = {}, 0
  for i = 1, #elements do
    if elements[i] == '' then
      blanks = blanks - 1
    else
      n = n + 1
      names[n] = sub(elements[i], 8)
    end
  end
  if n == 0 then return end
  local records = call('HMGET', jobs, unpack(names))
  local fields, at, size = {}, 0, #answer
  for i = 1, n do
    local id, record = names[i], records[i]
    if record then
      tick = tick + 1
      claimed = claimed + 1
      local state, hot, fence = byte(record), nil, spack('>I7', tick)
      if state == 113 then -- "q": never claimed, no waiters
        hot = opening[state] .. fence .. sub(record, 2, 47) .. closing .. worker
      elseif state == 119 then -- "w": never claimed, with waiters
        local waiters = sunpack('>I3', record, 45)
        hot = opening[state] .. fence .. sub(record, 2, 47) .. closing .. sub(record, 48, 47 + waiters) .. worker
      else
        local job = parse(record)
        job.state, job.fence, job.updated, job.mark, job.cancelling = 'P', tick, now, until_, 0
        job.attempts, job.worker, job.progress, job.payload = job.attempts + 1, worker, nil, ''
        hot = build(job)
      end
      bytes = bytes + #record
      at = at + 2
      fields[at - 1], fields[at] = id, hot
      given[claimed] = fence
      answer[size + at - 1], answer[size + at] = id, record
    end
  end
  if at > 0 then call('HSET', running, unpack(fields)) end
end

local function claim_others(low, high)
  while claimed < limit and bytes < MOST_BYTES do
    local elements = call('ZRANGEBYSCORE', prio, low, high, 'LIMIT', 0, math.min(CHUNK, limit - claimed))
    if #elements == 0 then return end
    call('ZREM', prio, unpack(elements))
    claim(elements)
  end
end

local others = call('ZCARD', prio)
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
answer[2], answer[4] = table.concat(status), table.concat(given)
call('HSET', workers, worker, spack('>I6', now) .. nonce .. spack('>I7I2', first_fence, claimed) .. answer[2])
save_meta()
return answer
