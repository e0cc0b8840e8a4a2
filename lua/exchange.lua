#!lua flags=allow-oom
-- exchange: hand in finished runs, promote what is due, fail what has not started in time, claim jobs. Never blocks.
--
-- KEYS: jobs running ready staged prio scheduled failing completed failed cancelled meta lines ring groups opens expiring
-- ARGV: now caller number lost worker limit lease_ms channel queue runs fences thens, then the ids, then the data
--   lost     number of the first of the caller's last calls whose answers never came: what they have claimed
--            goes back, since nobody runs it; 0: the last answer came
--   channel  what precedes an address in the name of its pub/sub channel
--   runs     for each run of settlements alike: how many 2, action 1 ("c" complete, "f" fail, "r" retry,
--            "l" release, "x" cancel), ttl 6, delay 6
--   fences   7 bytes per settlement
--   thens    for each piece of the jobs to insert after a settlement, by their places: place of the settlement 2,
--            size of runs 4, runs (see lib/runs.lua), then for each id and each body: size 4, it
-- Returns: {mark, one status per settlement, ms until the next due job or -1, "1" if jobs are left although more
--   could not be claimed in one call, "p" if the queue is paused, "h" if its limit keeps jobs back; if jobs have failed that
--   had not started in time, "x", "1", "h" or " ", and their ids, each after its size (2); fences of the claimed jobs (7 bytes each), then for each of them: id, its
--   record before the claim}
--   status   "A" accepted, "X" ended as cancelled, "L" lost
-- Invariants: a settlement writes only if its fence is that of the running record; a settled job leaves
--   running first, a write that needs no memory; what is claimed gets a new, larger fence and is in
--   running when it has left ready; nothing is claimed against the rules of the queue (see meta.lua), or at all where it has
--   one that this script does not know; nothing is claimed whose time to start is over: while more such jobs are left than
--   one step fails, it claims none; no step touches more than PROMOTE + EXPIRE + MOST + settlements jobs, and none
--   claims more than one job beyond BUDGET bytes.

-- include: base
local jobs, running, ready, staged, prio, scheduled, failing, completed, failed, cancelled, meta, lines, ring, groups, opens, expiring =
  KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7], KEYS[8], KEYS[9], KEYS[10], KEYS[11], KEYS[12],
  KEYS[13], KEYS[14], KEYS[15], KEYS[16]
local caller, number = ARGV[2], ARGV[3]
local lost, worker, limit, lease_ms, channel, queue =
  ARGV[4], ARGV[5], tonumber(ARGV[6]), tonumber(ARGV[7]), ARGV[8], ARGV[9]
local runs, fences, thens = ARGV[10], ARGV[11], ARGV[12]
-- include: meta
-- All that follows, not indented: functions get at the locals above through this one, at a part of the cost (README).
local function step()
grouped = grouped or thens ~= ''
-- include: seen
-- include: calls
-- include: record
-- include: extras
-- include: waiters
-- include: ready
-- include: groups
-- include: front
-- include: ended
-- include: packs
-- include: settle
-- include: promote
-- include: runs
local stored = counters[6]
local held, stops = false, false

local SETTLEMENT, FIXED, PROMOTE, EXPIRE, FIRST, CHUNK, MOST = 15, 12, 1000, 1000, 16, 128, 2000
local count = (#ARGV - FIXED) / 2
if #runs % SETTLEMENT ~= 0 or #fences ~= 7 * count then
  return redis.error_reply('ERR exchange: bad arguments')
end

-- A record as the answer has it: of one that was claimed before, only what the worker needs.
local function bare(record)
  local state = byte(record)
  if state == 113 or state == 119 or state == 101 then return record end
  local job = parse(record)
  job.waiters, job.progress, job.data = '', nil, nil
  return build(job)
end

-- Noted of the caller's last call is: first fence 7, how many it has claimed 2, instant at which it saw the next job due 7
-- (0: none), statuses, and the fourth part of its answer.
lost = sunpack('>I6', lost)
if ahead == 0 or (lost > 0 and before >= lost) then
  local from, had = sunpack('>I7I2', noted, 19)
  local all, claims = had > 0 and call('HGETALL', running) or {}, {}
  for i = 1, #all, 2 do
    local fence = sound(all[i + 1]) and sunpack('>I7', all[i + 1], FENCE) or 0
    if fence >= from and fence < from + had then
      claims[#claims + 1] = { id = all[i], fence = fence, record = all[i + 1] }
    end
  end
  if ahead > 0 then -- nobody runs them
    for _, claim in ipairs(claims) do settle(claim.id, parse(claim.record), 'l') end
  else
    table.sort(claims, function(a, b) return a.fence < b.fence end)
    local seen, due = sunpack('>I7', noted, 28), next_due() -- a limit may have opened before the next job is due
    if seen > 0 then due = due and math.min(due, seen) or seen end
    local answer = { named, sub(noted, 35, 34 + count), due and string.format(WHOLE, math.max(0, due - now)) or -1, sub(noted, 35 + count), '' }
    for _, claim in ipairs(claims) do
      answer[5] = answer[5] .. spack('>I7', claim.fence)
      answer[#answer + 1] = claim.id
      answer[#answer + 1] = bare(call('HGET', jobs, claim.id))
    end
    return answer
  end
end

-- The jobs to insert after each settlement, by its place.
local following, create = nil, nil
if thens ~= '' then
  function create(list, count, runs)
    local from, reply_to, room, budget, renew, moved, move = 0, '', math.huge, math.huge, nil, nil, nil
    -- include: create
  end
  local at = 1
  following = {}
  while at <= #thens do
    local place, size = sunpack('>I2I4', thens, at)
    local piece = { runs = sub(thens, at + 6, at + 5 + size) }
    at = at + 6 + size
    for i = 1, 2 * jobs_in(piece.runs) do
      local length = sunpack('>I4', thens, at)
      piece[i] = sub(thens, at + 4, at + 3 + length)
      at = at + 4 + length
    end
    following[place] = following[place] or {}
    table.insert(following[place], piece)
  end
end

-- 1. Settlements. Plain completions, nearly all of them, are collected and written together; not where jobs are to be
-- inserted after some, since each settlement has to see what was inserted before it.
local status, slow = {}, {}
if count > 0 then
  local hot = call('HMGET', running, unpack(ARGV, FIXED + 1, FIXED + count))
  local done, fields, n = {}, {}, 0
  local packs = {} -- expiry and number of its last job in `done`, in turns
  local seen, tails = {}, {}
  local nothing = spack('>I3I4', 0, 0)
  local i = 0
  for at = 1, #runs, SETTLEMENT do
    local plain, ttl = not following and byte(runs, at + 2) == 99, sunpack('>I6', runs, at + 3)
    local opening = 'C' .. spack('>BI6I7', 0, now, now + ttl)
    local opening_extras = 'C' .. spack('>BI6I7', 8, now, now + ttl)
    for _ = 1, (sunpack('>I2', runs, at)) do
      i = i + 1
      local id, record = ARGV[FIXED + i], hot[i]
      local flags = record and byte(record, FLAGS)
      -- A second settlement of one job has to see what the first did.
      if plain and (flags == 0 or flags == 2 or flags == 8 or flags == 10) and not seen[id]
        and sub(record, FENCE, FENCE_END) == sub(fences, 7 * i - 6, 7 * i) then
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
          fields[2 * n] = opening .. sub(record, ATTEMPTS, DATA_SIZE - 1) .. tail .. data
        elseif flags == 8 then
          if grouped then
            local tag, _, _, high, low = byte(record, BODY, BODY + 4)
            if tag == 103 then end_run(sub(record, BODY + 5, BODY + 4 + 256 * high + low)) end
          end
          fields[2 * n] = opening_extras .. sub(record, ATTEMPTS, SIZES - 1) .. nothing .. tail
            .. sub(record, BODY, FULL + sunpack('>I4', record, EXTRAS)) .. data
        else
          local waiters, extras = sunpack('>I3', record, SIZES), 0
          if flags ~= 2 then extras = sunpack('>I4', record, EXTRAS) end
          if extras > 0 and grouped then
            local tag, size = sunpack('>BI4', record, BODY + waiters)
            if tag == 103 then end_run(sub(record, BODY + waiters + 5, BODY + waiters + 4 + size)) end
          end
          post_reply(sub(record, BODY, FULL + waiters), id, sub(record, SEQ, SIZES - 1), 'C',
            sub(record, ATTEMPTS, STALLS - 1), data)
          fields[2 * n] = (extras > 0 and opening_extras or opening) .. sub(record, ATTEMPTS, SIZES - 1) .. nothing
            .. tail .. sub(record, BODY + waiters, FULL + waiters + extras) .. data
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
      for _, piece in ipairs(status[i] == 'A' and following and following[i] or {}) do
        create(piece, #piece / 2, piece.runs)
      end
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

-- 3. Jobs that have not started in time.
local late, later = '', false
if counters[8] and limit > 0 then
  -- include: limits
  -- include: search
  -- include: leave
  -- include: expire
  if not paused and are_late() then
    late = expire(EXPIRE)
    drop_blanks()
    later, due = are_late(), next_due()
  end
end

-- 4. Claims, highest priority first.
local answer = { '', '', -1, '', '' }
local given, first_fence, claimed, most, bytes = {}, tick + 1, 0, later and 0 or math.min(limit, MOST), 0
-- How many records are read together: few until it is known how large they are. No more than the caller's last call has
-- claimed: so many fitted into its answer.
local stride = noted and #noted > 26 and math.max(1, math.min(FIRST, (sunpack('>I2', noted, 26)))) or 1
local until_ = now + lease_ms
local opening = { [113] = 'P' .. spack('>BI6I7I4I4', 0, now, until_, 1, 0) }
opening[119] = 'P' .. spack('>BI6I7I4I4', 2, now, until_, 1, 0)
local opening_extras = 'P' .. spack('>BI6I7I4I4', 8, now, until_, 1, 0)
local opening_both = 'P' .. spack('>BI6I7I4I4', 10, now, until_, 1, 0)
local closing = spack('>I4I4I2', 0, 0, #worker)

-- Claim jobs; return with which of them it stopped, because the answer has become large.
local function claim_ids(names)
  local n = #names
  if n == 0 then return end
  local records = call('HMGET', jobs, unpack(names))
  local fields, at, size, stopped = {}, 0, #answer, nil
  for i = 1, n do
    local id, record = names[i], records[i]
    -- Of the records that nearly all are the check costs a part of what `sound` does: plain ones, and with a group alone.
    local state, waiters, extras, fine = record and byte(record), 0, 0, false
    if state == 113 then
      fine = #record >= SHORT_BODY - 1
    elseif state == 101 and #record >= SHORT_BODY + 4 then
      local top, middle, last, tag, one, two, high, low = byte(record, SHORT_WAITERS, SHORT_BODY + 4)
      extras, waiters = sunpack('>I4', record, SHORT_EXTRAS), 65536 * top + 256 * middle + last
      fine = waiters == 0 and tag == 103 and one == 0 and two == 0 and 256 * high + low + 5 == extras
        and #record >= SHORT_BODY + extras - 1
    end
    if bytes >= BUDGET then
      stopped = i
      break
    elseif record and not fine and not sound(record) then
      set_aside(jobs, id)
    elseif record then
      tick = tick + 1
      claimed = claimed + 1
      local hot, fence = nil, spack('>I7', tick)
      if state == 113 then -- "q": never claimed, no waiters
        hot = opening[state] .. fence .. sub(record, SHORT_CORE, SHORT_BODY - 1) .. closing .. worker
      elseif state == 119 then -- "w": never claimed, with waiters
        waiters = sunpack('>I3', record, SHORT_WAITERS)
        hot = opening[state] .. fence .. sub(record, SHORT_CORE, SHORT_BODY - 1) .. closing
          .. sub(record, SHORT_BODY, SHORT_BODY + waiters - 1) .. worker
      elseif state == 101 then -- "e": never claimed, with extras
        hot = (waiters == 0 and opening_extras or opening_both) .. fence .. sub(record, SHORT_CORE, SHORT_BODY - 1)
          .. closing .. sub(record, SHORT_BODY, SHORT_BODY + waiters + extras - 1) .. worker
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

-- The same for elements of ready or prio.
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
  return from[claim_ids(names)]
end

local function claim_others(low, high)
  while claimed < most and bytes < BUDGET do
    local elements = call('ZRANGEBYSCORE', prio, low, high, 'LIMIT', 0, math.min(stride, most - claimed))
    if #elements == 0 then return end
    local stopped = claim(elements)
    call('ZREM', prio, unpack(elements, 1, stopped and stopped - 1 or #elements))
  end
end

if grouped then
  local function by_rules()
    -- include: limits
    -- include: claim_turns
  end
  by_rules()
  answer[4] = stops and 'p' or held and 'h' or ''
else
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
end
if retried and due and due >= retried then wake() end

if counters[8] and claimed > 0 then -- they have started
  local started = {}
  for i = 6, #answer, 2 do
    local at = SHORT[sub(answer[i + 1], 1, 1)] and SHORT_SEQ or SEQ
    started[#started + 1] = sub(answer[i + 1], at, at + 6) .. answer[i]
  end
  call('ZREM', expiring, unpack(started))
end
publish()
if grouped then save_groups(true) end
if due then answer[3] = string.format(WHOLE, math.max(0, due - now)) end
if claimed > 0 and (claimed == most or bytes >= BUDGET) and ready_count() > 0 then answer[4] = '1' end
if late ~= '' then answer[4] = 'x' .. (later and '1' or answer[4] ~= '' and answer[4] or ' ') .. late end
answer[2], answer[5] = table.concat(status), table.concat(given)
remember(spack('>I7I2I7', first_fence, claimed, due or 0) .. answer[2] .. answer[4])
answer[1] = named
return answer
end
return step()
