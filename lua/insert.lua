#!lua
-- insert: create the jobs whose id is absent or may be replaced; describe the others.
--
-- KEYS: jobs running ready staged prio scheduled failing completed failed cancelled meta
-- ARGV: now nonce reply_to max_length, then for each job: id head payload
--   nonce       6 bytes that name the call; a repeated call answers "created" for what it created
--   reply_to    address to register for the jobs that wait; "" for none
--   max_length  most jobs that may wait, "" for no limit
--   head        reuse 1 ("r" return, "f" rerun failed, "a" rerun), wait 1 ("1" yes), due kind 1 ("d"
--               delay, "a" instant), due 6, priority 2, max_attempts 4, max_stalls 4, ttl 6;
--               "" means the same as that of the job before
-- Returns: {named, seq of the first created, one status per job, then a record per "f" and "r"}
--   status      "q" created ready, "s" created scheduled, "F" full, "f" found, "r" created by an earlier
--               send of this call
-- Invariants: nothing is written unless every argument was read; a job is put in exactly one index;
--   a replaced one leaves its old index; at most as many expired records as jobs are dropped on the way.

-- include: base
local jobs, running, ready, staged, prio, scheduled, failing, completed, failed, cancelled, meta =
  KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7], KEYS[8], KEYS[9], KEYS[10], KEYS[11]
local nonce, reply_to, max_length = ARGV[2], ARGV[3], tonumber(ARGV[4])
-- include: meta
-- include: record
-- include: ready

local HEAD = 25
local ended_keys = { C = completed, F = failed, X = cancelled }
local count = (#ARGV - 4) / 3
local waiter = reply_to ~= '' and string.char(#reply_to) .. reply_to or ''

local ids = {}
for i = 1, count do
  ids[i] = ARGV[2 + 3 * i]
  local head = ARGV[3 + 3 * i]
  if head ~= '' and #head ~= HEAD then return redis.error_reply('ERR insert: bad head') end
end
local records = call('HMGET', jobs, unpack(ids))

local room = math.huge
if max_length then
  room = max_length - ready_count() - call('ZCARD', scheduled) - call('ZCARD', failing)
end

local first, created = tick + 1, 0
local status, found = {}, {}
local fields, places = {}, {} -- what to HSET; where a job of this call stands in it
local pushed, prioritised, planned, freed = {}, {}, {}, {}
local joined = {} -- running records that get a waiter

-- Answer a job that is there, or return nothing if it is to be created.
local function find(i, id, record, reuse, wait)
  local state = sub(record, 1, 1)
  local ended = ended_keys[state]
  local live = not ended and not places[id] and call('HGET', running, id)
  local core = (state == 'q' or state == 's') and 2 or 31
  local mine = sub(record, core + 16, core + 23) == nonce .. spack('>I2', i)
  if ended and not mine then
    if state == 'X' or reuse == 'a' or (reuse == 'f' and state == 'F') or expired(record) then
      return nil
    end
  end
  local current = live or record
  local job = parse(current)
  if wait and not ended then
    local waiters = with_waiter(job.waiters, reply_to)
    if waiters ~= job.waiters then
      job.waiters = waiters
      if live then
        joined[#joined + 1] = id
        joined[#joined + 1] = build(job)
      else
        if state == 'q' or state == 's' then
          current = state .. job.core .. spack('>I3', #waiters) .. waiters .. job.payload
        else
          current = build(job)
        end
        local place = places[id]
        if not place then
          place = #fields + 2
          fields[place - 1], places[id] = id, place
        end
        fields[place] = current
      end
    end
  end
  job.payload = ''
  found[#found + 1] = build(job)
  status[i] = mine and 'r' or 'f'
  return true
end

local head, reuse, wait, absolute, due, core
for i = 1, count do
  local id, payload = ids[i], ARGV[4 + 3 * i]
  local given = ARGV[3 + 3 * i]
  if given ~= '' then
    head, reuse, absolute = given, sub(given, 1, 1), byte(given, 3) == 97
    wait = waiter ~= '' and byte(given, 2) == 49
    due, core = sunpack('>I6', given, 4), sub(given, 10)
    if not absolute then due = now + due end
  end
  local record = records[i]
  if places[id] then record = fields[places[id]] end
  if record and find(i, id, record, reuse, wait) then
    -- answered
  elseif created >= room then
    status[i] = 'F'
  else
    local seq, priority = first + created, sunpack('>h', core)
    created = created + 1
    local state = due <= now and 'q' or 's'
    local waiters = wait and waiter or ''
    local place = #fields + 2
    fields[place - 1], places[id] = id, place
    fields[place] = state .. core .. nonce
      .. spack('>I2I7I6I6I3', i, seq, now, due, #waiters) .. waiters .. payload
    if record then
      local key = ended_keys[sub(record, 1, 1)]
      freed[key] = freed[key] or {}
      table.insert(freed[key], id)
    end
    if state == 's' then
      planned[#planned + 1] = due
      planned[#planned + 1] = spack('>I7', seq) .. id
    elseif priority == 0 then
      pushed[#pushed + 1] = spack('>I7', BIAS + seq) .. id
    else
      prioritised[#prioritised + 1] = -priority
      prioritised[#prioritised + 1] = spack('>I7', BIAS + seq) .. id
    end
    status[i] = state
  end
end
tick = tick + created

-- Writes. The first may be refused for lack of memory; after it the server refuses none.
if #fields > 0 then call('HSET', jobs, unpack(fields)) end
if #joined > 0 then call('HSET', running, unpack(joined)) end
for key, gone in pairs(freed) do call('ZREM', key, unpack(gone)) end
if created > 0 then
  if #pushed > 0 then call('RPUSH', ready, unpack(pushed)) end
  if #prioritised > 0 then
    call('ZADD', prio, unpack(prioritised))
    wake()
  end
  if #planned > 0 then
    local earliest = math.huge
    for i = 1, #planned, 2 do earliest = math.min(earliest, planned[i]) end
    for _, key in ipairs({ scheduled, failing }) do
      local head_of = call('ZRANGE', key, 0, 0, 'WITHSCORES')
      if head_of[2] and tonumber(head_of[2]) <= earliest then earliest = nil break end
    end
    call('ZADD', scheduled, unpack(planned))
    if earliest then wake() end
  end
  local expiring = us % 4 > 0 and completed or us % 8 > 0 and failed or cancelled
  local gone = call('ZRANGEBYSCORE', expiring, '-inf', now, 'LIMIT', 0, 2 * created + 8)
  if #gone > 0 then
    call('ZREM', expiring, unpack(gone))
    call('HDEL', jobs, unpack(gone))
  end
  save_meta()
end
return { counters[3] or '', string.format('%.0f', first), table.concat(status), unpack(found) }
