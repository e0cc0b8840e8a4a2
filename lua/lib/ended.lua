-- Ending jobs, and telling who waits. Needs: base, meta, record, extras, KEYS failed cancelled.
--
-- A message goes to one mailbox, the first 20 digits of the SHA-1 of an address. It is a row of frames.
-- "r", a job has ended: size of queue 1, queue, size of id 2, id, seq 7, state 1, attempts 4,
-- size of data 4 (one too large; 0: none, or too large to push), data.
-- "c", end the job that you run: size of queue 1, queue, size of id 2, id, fence 7.
-- A waiter is a mailbox and a secret. What is sent to it begins with "s" and the secret: so it is believed.
local INLINE, MESSAGE, MAILBOX = 16384, 262144, 20
local ended_keys = { F = failed, X = cancelled }
local outbox = {} -- frames by waiter, or by mailbox alone
local PUBLISH = byte(channel) == 123 and 'SPUBLISH' or 'PUBLISH' -- 123: "{", shard channels have the queue's tag

local function send(to, frames)
  local secret = sub(to, MAILBOX + 1)
  local signature = secret == '' and '' or 's' .. secret
  -- Never an error: what is written stays written, and waiters look by themselves.
  redis.pcall(PUBLISH, channel .. sub(to, 1, MAILBOX), signature .. table.concat(frames))
end

local function post(to, frame)
  local frames = outbox[to]
  if not frames or frames.size > MESSAGE then
    if frames then send(to, frames) end
    frames = { size = 0 }
    outbox[to] = frames
  end
  frames[#frames + 1] = frame
  frames.size = frames.size + #frame
end

local function post_reply(waiters, id, seq, state, attempts, data)
  local inline = data and #data <= INLINE
  local frame = 'r' .. string.char(#queue) .. queue .. spack('>I2', #id) .. id .. seq .. state
    .. attempts .. spack('>I4', inline and #data + 1 or 0) .. (inline and data or '')
  local at, size = 1, #waiters
  while at <= size do
    local length = byte(waiters, at)
    post(sub(waiters, at + 1, at + length), frame)
    at = at + 1 + length
  end
end

local function post_cancel(worker, id, fence)
  local mailbox = sub(redis.sha1hex(worker), 1, MAILBOX)
  post(mailbox, 'c' .. string.char(#queue) .. queue .. spack('>I2', #id) .. id .. spack('>I7', fence))
end

-- Tell who was told that nothing may start: it waits on this channel, see set_rules.
local function announce()
  local prefix = sub(channel, 1, -4)
  redis.pcall(PUBLISH, byte(channel) == 123 and prefix .. 'resumed' or prefix .. queue .. ':resumed', '')
end

local function publish()
  for to, frames in pairs(outbox) do send(to, frames) end
end

-- Turn a job into an ended one, index it unless it is completed (see packs.lua), and tell its waiters; the
-- caller stores the record.
local function finish(job, id, state, data, expires)
  job.state, job.data, job.mark, job.updated, job.worker = state, data, expires, now, ''
  if state ~= 'F' then job.payload = '' end
  if job.saving > 0 then save(job, nil) end
  if state == 'F' then begin_letter(job) end
  if state ~= 'C' then call('ZADD', ended_keys[state], kept_until(job), id) end
  ended_ever = ended_ever + 1
  if job.waiters ~= '' then
    post_reply(job.waiters, id, seq_of(job), state, spack('>I4', job.attempts), data)
    job.waiters = ''
  end
end

-- End a job as cancelled: it stays for its own TTL.
local function finish_cancelled(job, id)
  finish(job, id, 'X', nil, now + sunpack('>I6', job.core, CORE_TTL))
end
