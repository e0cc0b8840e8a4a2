#!lua
-- insert: create the jobs whose id is absent or may be replaced; describe the others.
--
-- KEYS: jobs running ready staged prio scheduled failing completed failed cancelled meta
-- ARGV: now caller number reply_to max_length confirm runs, then the ids, then the payloads
--   reply_to    address to register for the jobs that wait; "" for none
--   max_length  most jobs that may wait, "" for no limit
--   confirm     "1" if the caller goes on to WAIT, which looks at the last write of its connection: there is
--               one then, although the jobs were found
--   runs        for each run of jobs with equal options: how many 2, reuse 1 ("r" return, "f" rerun failed,
--               "a" rerun), wait 1 ("1" yes), due kind 1 ("d" delay, "a" instant), due 6, priority 2,
--               max_attempts 4, max_stalls 4, ttl 6
-- Returns: {mark, seq of the first created, one status per job, then a record per "f"}: of the first jobs only,
--   where what is found is more than BUDGET bytes
--   status      "q" created ready, "s" created scheduled, "F" full, "f" found, "m" found by an earlier send of
--               this call, to be read
-- Invariants: nothing is written unless every argument was read; a job is put in exactly one index;
--   a replaced one leaves its old index; on the way twice as many expired records as jobs are dropped.

-- include: base
local jobs, running, ready, staged, prio, scheduled, failing, completed, failed, cancelled, meta =
  KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7], KEYS[8], KEYS[9], KEYS[10], KEYS[11]
local caller, number = ARGV[2], ARGV[3]
local reply_to, max_length, confirm, runs = ARGV[4], tonumber(ARGV[5]), ARGV[6] == '1', ARGV[7]
-- include: meta
-- include: seen
-- include: calls
-- include: record
-- include: waiters
-- include: ready
-- include: packs

local RUN, FIXED, CHUNK = 27, 7, 128
local ended_keys = { C = true, F = failed, X = cancelled }
local count = (#ARGV - FIXED) / 2
local waiter = reply_to ~= '' and string.char(#reply_to) .. reply_to or ''
local told = 0
for at = 1, #runs, RUN do told = told + sunpack('>I2', runs, at) end
if told ~= count then return redis.error_reply('ERR insert: bad arguments') end

-- Noted is: seq of the first created 7, statuses.
if ahead == 0 then
  if confirm then save_meta() end
  return { named, string.format(WHOLE, sunpack('>I7', noted, 19)), (string.gsub(sub(noted, 26), 'f', 'm')) }
end

local room = math.huge
if max_length then
  room = max_length - ready_count() - call('ZCARD', scheduled) - call('ZCARD', failing)
end

local first, created = tick + 1, 0
local status, found, bytes = {}, {}, 0
local fields, places, size = {}, {}, 0 -- what to HSET; where a job of this call stands in it
local pushed, prioritised, planned, freed = {}, {}, {}, {}
local unfiled = {} -- replaced completed jobs, by expiry
local joined = {} -- running records that get a waiter

local function put(id, record)
  local place = places[id]
  if not place then
    place, size = size + 2, size + 2
    fields[place - 1], places[id] = id, place
  end
  fields[place] = record
end

-- Answer a job that is there; false if it is to be created.
local function find(i, id, record, reuse, wait)
  local state = sub(record, 1, 1)
  local key = ended_keys[state]
  if key and (state == 'X' or reuse == 'a' or (reuse == 'f' and state == 'F') or expired(record)) then
    return false
  end
  local live = not key and not places[id] and call('HGET', running, id)
  if live and not sound(live) then live = nil end
  local job = parse(live or record)
  if wait and not key then
    local waiters = with_waiter(job.waiters, reply_to)
    if waiters ~= job.waiters then
      job.waiters = waiters
      if live then
        joined[#joined + 1] = id
        joined[#joined + 1] = build(job)
      else
        put(id, rebuild(record, job))
      end
    end
  end
  job.waiters, job.progress, job.payload = '', nil, ''
  if not key then job.data = nil end
  found[#found + 1] = build(job)
  bytes = bytes + #found[#found]
  status[i] = 'f'
  return true
end

local i = 0
local read, stride = 0, 8 -- how many records were read, and are read together: few until it is known how large they are
local records
for at = 1, #runs, RUN do
  local reuse, wait = sub(runs, at + 2, at + 2), waiter ~= '' and byte(runs, at + 3) == 49
  local due, priority = sunpack('>I6h', runs, at + 5)
  if byte(runs, at + 4) == 100 then due = now + due end
  local later = due > now
  local letter = later and 's' or wait and 'w' or 'q'
  local opening = letter .. sub(runs, at + 11, at + 26) .. '\0\0\0\0\0\0' .. spack('>I6I6', now, due)
  local closing = wait and spack('>I3', #waiter) .. waiter or spack('>I3', 0)
  letter = later and 's' or 'q'
  for _ = 1, (sunpack('>I2', runs, at)) do
    if bytes >= BUDGET then break end
    if i == read then
      records = call('HMGET', jobs, unpack(ARGV, FIXED + i + 1, FIXED + math.min(count, i + stride)))
      local size = 0
      for _, one in ipairs(records) do size = size + (one and #one or 0) end
      read, stride = i + #records, size < BUDGET / 8 and CHUNK or 8
    end
    i = i + 1
    local id = ARGV[FIXED + i]
    local place, record = places[id], records[#records - read + i]
    if place then record = fields[place] end
    if record and not sound(record) then -- nobody can run it: the new job takes its place
      set_aside(jobs, id)
      record = nil
    end
    if record and find(i, id, record, reuse, wait) then
      -- answered
    elseif created >= room then
      status[i] = 'F'
    else
      if record then
        local key = ended_keys[sub(record, 1, 1)]
        if key == true then
          local expires = sunpack('>I7', record, 9)
          unfiled[expires] = unfiled[expires] or {}
          unfiled[expires][id] = true
        else
          freed[key] = freed[key] or {}
          table.insert(freed[key], id)
        end
      end
      created = created + 1
      local seq = spack('>I7', tick + created)
      size = size + 2
      fields[size - 1], fields[size], places[id] =
        id, opening .. '\0\0' .. seq .. closing .. ARGV[FIXED + count + i], size
      if later then
        planned[#planned + 1] = due
        planned[#planned + 1] = seq .. id
      elseif priority == 0 then
        pushed[#pushed + 1] = seq .. id
      else
        prioritised[#prioritised + 1] = -priority
        prioritised[#prioritised + 1] = seq .. id
      end
      status[i] = letter
    end
  end
end
tick = tick + created

-- Writes. The first may be refused for lack of memory; after it the server refuses none.
if size > 0 then call('HSET', jobs, unpack(fields)) end
if #joined > 0 then call('HSET', running, unpack(joined)) end
if created > 0 then
  for key, gone in pairs(freed) do call('ZREM', key, unpack(gone)) end
  for expires, gone in pairs(unfiled) do unfile(expires, gone) end
  if #pushed > 0 then call('RPUSH', ready, unpack(pushed)) end
  if #prioritised > 0 then
    call('ZADD', prio, unpack(prioritised))
    wake()
  end
  if #planned > 0 then
    local function head(key) return tonumber(call('ZRANGE', key, 0, 0, 'WITHSCORES')[2]) or math.huge end
    local earliest = math.min(head(scheduled), head(failing))
    call('ZADD', scheduled, unpack(planned))
    if head(scheduled) < earliest then wake() end
  end
  local most, gone = 2 * created + 8, nil
  if us % 4 > 0 then
    gone = unfile_expired(most)
  else
    local expiring = us % 8 > 0 and failed or cancelled
    gone = call('ZRANGEBYSCORE', expiring, '-inf', string.format(WHOLE, now), 'LIMIT', '0', string.format('%d', most))
    if #gone > 0 then call('ZREM', expiring, unpack(gone)) end
  end
  if #gone > 0 then call('HDEL', jobs, unpack(gone)) end
  remember(spack('>I7', first) .. table.concat(status))
elseif confirm and #found > 0 then
  save_meta()
end
return { named, string.format(WHOLE, first), table.concat(status), unpack(found) }
