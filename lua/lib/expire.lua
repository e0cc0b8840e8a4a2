-- Ending jobs that have not started in time. Needs: base, meta, record, extras, ready, groups, search, leave, ended,
-- KEYS jobs running expiring; call unstage() first, and drop_blanks() when all is done.
--
-- expiring holds seq (7 bytes) .. id of the waiting jobs that were never claimed and have to start in time, scored by the
-- instant from which on they may not.

-- What a job fails with: `EXPIRED_ERROR` of jobqueue/model/outcomes.py. Every exchange would have to bring it along.
local EXPIRED = '{"type":"Expired","message":"it had not started within `expires` seconds after it was due, so it never will","reason":"expired"}'

-- Fail up to `most` of those whose time is over, by that instant, then by seq; fewer if they are large. Returns their
-- ids, each after its size (2).
local function expire(most)
  local members = call('ZRANGEBYSCORE', expiring, '-inf', string.format(WHOLE, now), 'LIMIT', '0',
    string.format('%d', most))
  local told, bytes = {}, 0
  for _, member in ipairs(members) do
    if bytes >= BUDGET then break end
    local id = sub(member, 8)
    call('ZREM', expiring, member)
    local record = not call('HGET', running, id) and call('HGET', jobs, id)
    local job = record and sound(record) and parse(record)
    local time = job and seq_of(job) .. id == member and start_before(job)
    if time and time <= now and leave_index(job, id) then
      bytes = bytes + #record
      finish(job, id, 'F', EXPIRED, now + sunpack('>I6', job.core, CORE_TTL))
      call('HSET', jobs, id, build(job))
      told[#told + 1] = spack('>I2', #id) .. id
    end
  end
  return table.concat(told)
end

-- Whether there are more.
local function are_late()
  local first = call('ZRANGE', expiring, 0, 0, 'WITHSCORES')[2]
  return first and tonumber(first) <= now
end
