-- Creating jobs: not a function, but steps, since a function with so many upvalues costs a twentieth of insert. Needs:
-- base, meta, record, waiters, ready, groups, packs, runs, KEYS jobs running ready prio scheduled failing completed failed
-- cancelled expiring.
--
-- Given are `count` jobs, whose ids are list[from + 1] and so on, and whose bodies follow; their `runs` (see runs);
-- `reply_to` to register for those that wait; `room` for so many; and the `budget` of bytes of records that are found,
-- behind which no more are looked at. What comes of it: `first`, the seq of the first job created, `created`, how many
-- were, `status`, one for each job, and `found`, the records that were, both as insert answers them.
-- Where a caller may replace jobs that wait there is `renew` (see renew), and else none.
-- A job is put in exactly one index; a replaced one leaves its old index; on the way twice as many expired records as
-- jobs are dropped.
local CREATE_CHUNK = 128
local ended_by_letter = { C = true, F = failed, X = cancelled }
local waiter = reply_to ~= '' and string.char(#reply_to) .. reply_to or ''
local first, created = tick + 1, 0
local status, found, bytes = {}, {}, 0
local fields, places, size = {}, {}, 0 -- what to HSET; where a job of this call stands in it
local pushed, prioritised, planned, freed = {}, {}, {}, {}
local placed, with_groups = {}, false -- ready jobs with a group, each with its id and group
local timed, untimed = {}, {} -- what to add to expiring, and what to take out before
local unfiled = {} -- replaced completed jobs, by expiry
local joined = {} -- running records that get a waiter
local lapsed -- ids whose record cannot be read, as a set

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
  local key = ended_by_letter[state]
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
  job.waiters, job.extras, job.progress, job.payload = '', '', nil, ''
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
  local reuse, kind = sub(runs, at + 2, at + 2), byte(runs, at + 3)
  local wait, extras, in_group, expires = waiter ~= '' and kind % 2 == 1, kind % 4 >= 2, kind % 8 >= 4, kind >= 64
  with_groups = with_groups or in_group
  local due, priority = sunpack('>I6h', runs, at + 5)
  local due_kind = byte(runs, at + 4)
  local debounce = due_kind == 98 or due_kind == 105
  if due_kind == 98 or due_kind == 100 then due = now + due end
  local later = due > now
  local letter = extras and (later and 't' or 'e') or later and 's' or wait and 'w' or 'q'
  local options, instants = letter .. sub(runs, at + 11, at + 26), '\0\0' .. spack('>I6I6', now, due) .. '\0\0'
  local opening = options .. '\0\0\0\0' .. instants
  local closing = wait and spack('>I3', #waiter) .. waiter or spack('>I3', 0)
  letter = later and 's' or 'q'
  for _ = 1, (sunpack('>I2', runs, at)) do
    if bytes >= budget then break end
    if i == read then
      records = call('HMGET', jobs, unpack(list, from + i + 1, from + math.min(count, i + stride)))
      local volume = 0
      for _, one in ipairs(records) do volume = volume + (one and #one or 0) end
      read, stride = i + #records, volume < BUDGET / 8 and CREATE_CHUNK or 8
    end
    i = i + 1
    local id = list[from + i]
    local place, record, renewed, back = places[id], records[#records - read + i], nil, nil
    if place then record = fields[place] end
    if record and not sound(record) then
      local live = call('HGET', running, id)
      if live and sound(live) then
        record = live -- its worker has the payload
      else -- nobody can run it: the new job takes its place
        set_aside(jobs, id)
        lapsed = lapsed or {}
        lapsed[id], record = true, nil
      end
    end
    if renew and kind % 16 >= 8 and record and not place then
      renewed, back =
        renew(id, record, options, due, debounce, extras, wait, list[from + count + i], tick + created + 1)
    end
    if renewed then
      put(id, build(renewed))
      with_groups = with_groups or grouped and group_of(renewed.extras)
      local member, body = seq_of(renewed) .. id, list[from + count + i]
      if counters[8] then untimed[#untimed + 1] = member end
      if expires and renewed.fence == 0 then
        timed[#timed + 1] = sunpack('>I6', renewed.core, CORE_DUE) + sunpack('>I6', body, sunpack('>I4', body) - 1)
        timed[#timed + 1] = member
      end
      if back then
        created, room = created + 1, room + 1
        local element, group = spack('>I7', renewed.mark) .. id, grouped and group_of(renewed.extras)
        if group then
          placed[#placed + 1] = { { core = renewed.core, mark = renewed.mark, extras = renewed.extras }, id, group }
        elseif priority == 0 then
          pushed[#pushed + 1] = element
        else
          prioritised[#prioritised + 1] = -priority
          prioritised[#prioritised + 1] = element
        end
      end
      status[i], renewed.waiters, renewed.extras, renewed.progress, renewed.data, renewed.payload =
        back and 'R' or 'p', '', '', nil, nil, ''
      found[#found + 1] = build(renewed)
      bytes = bytes + #found[#found]
    elseif record and find(i, id, record, reuse, wait) then
      -- answered
    elseif created >= room then
      status[i] = 'F'
    else
      if record then
        local key = ended_by_letter[sub(record, 1, 1)]
        if key == true then
          local expires = sunpack('>I7', record, MARK)
          unfiled[expires] = unfiled[expires] or {}
          unfiled[expires][id] = true
        else
          freed[key] = freed[key] or {}
          table.insert(freed[key], id)
        end
      end
      created = created + 1
      local seq = spack('>I7', tick + created)
      local body = list[from + count + i]
      size = size + 2
      fields[size - 1], places[id] = id, size
      if extras then
        fields[size] = options .. sub(body, 1, 4) .. instants .. seq .. closing .. sub(body, 5)
      else
        fields[size] = opening .. seq .. closing .. body
      end
      if expires then -- the last of its extras
        timed[#timed + 1] = due + sunpack('>I6', body, sunpack('>I4', body) - 1)
        timed[#timed + 1] = seq .. id
      end
      if later then
        planned[#planned + 1] = due
        planned[#planned + 1] = seq .. id
      elseif in_group then
        local job = { core = sub(options, 2), mark = tick + created, extras = sub(body, 5, 4 + sunpack('>I4', body)) }
        placed[#placed + 1] = { job, id, group_of(job.extras) }
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
if renew and #moved > 0 then move() end
if with_groups and not counters[7] then call('HSET', meta, 'grouped', '1') end
if created > 0 then
  if lapsed then
    local ids = lapsed
    -- include: leftovers
  end
  if #placed > 0 then
    local names = {}
    for i, one in ipairs(placed) do names[i] = one[3] end
    fetch_groups(names)
    for _, one in ipairs(placed) do place_line(one[1], one[2], one[3]) end
  end
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
end
if #untimed > 0 then call('ZREM', expiring, unpack(untimed)) end
if #timed > 0 then
  call('ZADD', expiring, unpack(timed))
  if not counters[8] then call('HSET', meta, 'expiring', '1') end
end
