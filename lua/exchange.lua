#!lua flags=allow-oom
-- exchange: hand in finished runs, promote what is due, claim jobs. Never blocks.
--
-- KEYS: jobs running ready staged prio scheduled failing completed failed cancelled meta
-- ARGV: now caller number lost worker limit lease_ms channel queue runs fences, then the ids, then the data
--   lost     number of the first of the caller's last calls whose answers never came: what they have claimed
--            goes back, since nobody runs it; 0: the last answer came
--   channel  what precedes an address in the name of its pub/sub channel
--   runs     for each run of settlements alike: how many 2, action 1 ("c" complete, "f" fail, "r" retry,
--            "l" release, "x" cancel), ttl 6, delay 6
--   fences   7 bytes per settlement
-- Returns: {mark, one status per settlement, ms until the next due job or -1, "1" if jobs are left although more
--   could not be claimed in one call, fences of the claimed jobs (7 bytes each), then for each of them: id, its
--   record before the claim}
--   status   "A" accepted, "X" ended as cancelled, "L" lost
-- Invariants: a settlement writes only if its fence is that of the running record; a settled job leaves
--   running first, a write that needs no memory; what is claimed gets a new, larger fence and is in
--   running when it has left ready; no step touches more than PROMOTE + MOST + settlements jobs, and none
--   claims more than one job beyond BUDGET bytes.

-- include: base
local jobs, running, ready, staged, prio, scheduled, failing, completed, failed, cancelled, meta =
  KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7], KEYS[8], KEYS[9], KEYS[10], KEYS[11]
local caller, number = ARGV[2], ARGV[3]
local lost, worker, limit, lease_ms, channel, queue =
  ARGV[4], ARGV[5], tonumber(ARGV[6]), tonumber(ARGV[7]), ARGV[8], ARGV[9]
local runs, fences = ARGV[10], ARGV[11]
-- include: meta
-- include: seen
-- include: calls
-- include: record
-- include: ready
-- include: front
-- include: ended
-- include: packs
-- include: settle
-- include: promote

local RUN, FIXED, PROMOTE, CHUNK, MOST = 15, 11, 1000, 128, 2000
local count = (#ARGV - FIXED) / 2
if #runs % RUN ~= 0 or #fences ~= 7 * count then
  return redis.error_reply('ERR exchange: bad arguments')
end

-- A record as the answer has it: of one that was claimed before, only what the worker needs.
local function bare(record)
  local state = byte(record)
  if state == 113 or state == 119 then return record end
  local job = parse(record)
  job.waiters, job.progress, job.data = '', nil, nil
  return build(job)
end

-- Noted of the caller's last call is: first fence 7, how many it has claimed 2, statuses.
lost = sunpack('>I6', lost)
if ahead == 0 or (lost > 0 and before >= lost) then
  local from, had = sunpack('>I7I2', noted, 19)
  local all, claims = had > 0 and call('HGETALL', running) or {}, {}
  for i = 1, #all, 2 do
    local fence = sound(all[i + 1]) and sunpack('>I7', all[i + 1], 24) or 0
    if fence >= from and fence < from + had then
      claims[#claims + 1] = { id = all[i], fence = fence, record = all[i + 1] }
    end
  end
  if ahead > 0 then -- nobody runs them
    for _, claim in ipairs(claims) do settle(claim.id, parse(claim.record), 'l') end
  else
    table.sort(claims, function(a, b) return a.fence < b.fence end)
    local due = next_due()
    local answer = { named, sub(noted, 28), due and string.format(WHOLE, math.max(0, due - now)) or -1, '', '' }
    for _, claim in ipairs(claims) do
      answer[4] = '1' -- maybe
      answer[5] = answer[5] .. spack('>I7', claim.fence)
      answer[#answer + 1] = claim.id
      answer[#answer + 1] = bare(call('HGET', jobs, claim.id))
    end
    return answer
  end
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
      file(string.format(WHOLE, packs[at]), done, filed + 1, packs[at + 1])
      filed = packs[at + 1]
    end
    ended_ever = ended_ever + n
  end
end
for _, place in ipairs(slow) do
  local i, at = place[1], place[2]
  local id, fence = ARGV[FIXED + i], sunpack('>I7', fences, 7 * i - 6)
  local record = call('HGET', running, id)
  if record and not sound(record) then
    status[i] = 'L'
  elseif record then
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
    local held = record and sound(record) and not expired(record) and parse(record)
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
local answer = { '', '', due and string.format(WHOLE, math.max(0, due - now)) or -1, '', '' }
local given, first_fence, claimed, most, bytes = {}, tick + 1, 0, math.min(limit, MOST), 0
local stride = 1 -- how many records are read together: few until it is known how large they are
local until_ = now + lease_ms
local opening = { [113] = 'P' .. spack('>BI6I7I4I4', 0, now, until_, 1, 0) }
opening[119] = 'P' .. spack('>BI6I7I4I4', 2, now, until_, 1, 0)
local closing = spack('>I4I4I2', 0, 0, #worker)

-- Claim what elements name; return with which of them it stopped, because the answer has become large.
local function claim(elements)
  local names, from, n = {}, {}, 0
  for i = 1, #elements do
    if elements[i] == '' then
      blanks = blanks - 1
    else
      n = n + 1
      names[n], from[n] = sub(elements[i], 8), i
    end
  end
  if n == 0 then return end
  local records = call('HMGET', jobs, unpack(names))
  local fields, at, size, stopped = {}, 0, #answer, nil
  for i = 1, n do
    local id, record = names[i], records[i]
    if bytes >= BUDGET then
      stopped = from[i]
      break
    elseif record and not (byte(record) == 113 and #record >= SHORTEST) and not sound(record) then
      set_aside(jobs, id)
    elseif record then
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
        hot, record = build(job), bare(record)
      end
      bytes = bytes + #record
      at = at + 2
      fields[at - 1], fields[at] = id, hot
      given[claimed] = fence
      answer[size + at - 1], answer[size + at] = id, record
    end
  end
  if at > 0 then
    call('HSET', running, unpack(fields))
    stride = math.max(1, math.min(CHUNK, 16 * stride, math.floor((BUDGET - bytes) * claimed / bytes)))
  end
  return stopped
end

local function claim_others(low, high)
  while claimed < most and bytes < BUDGET do
    local elements = call('ZRANGEBYSCORE', prio, low, high, 'LIMIT', 0, math.min(stride, most - claimed))
    if #elements == 0 then return end
    local stopped = claim(elements)
    call('ZREM', prio, unpack(elements, 1, stopped and stopped - 1 or #elements))
  end
end

local others = call('ZCARD', prio)
if others > 0 then claim_others('-inf', '(0') end
while claimed < most and bytes < BUDGET do
  local elements = call('LPOP', ready, string.format('%d', math.min(stride, most - claimed)))
  if not elements then break end
  local stopped = claim(elements)
  for i = #elements, stopped or #elements + 1, -1 do call('LPUSH', ready, elements[i]) end
end
if others > 0 then
  claim_others('(0', '+inf')
  if call('ZCARD', prio) > 0 then wake() end
end
if retried and due and due >= retried then wake() end

publish()
if claimed > 0 and (claimed == most or bytes >= BUDGET) and ready_count() > 0 then answer[4] = '1' end
answer[2], answer[5] = table.concat(status), table.concat(given)
remember(spack('>I7I2', first_fence, claimed) .. answer[2])
answer[1] = named
return answer
