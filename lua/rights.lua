#!lua flags=allow-oom
-- rights: try every command of the scripts, on the keys of a queue without a name.
--
-- KEYS: jobs ready staged prio
-- ARGV: now channel
--   channel  one that nobody listens to
-- Returns: for each command that failed: its name, the error
-- Invariants: the keys are gone at the end.

local jobs, ready, staged, prio = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local channel = ARGV[2]

local failed = {}
local function try(command, ...)
  local reply = redis.pcall(command, ...)
  if type(reply) == 'table' and reply.err then
    failed[#failed + 1] = command
    failed[#failed + 1] = reply.err
  end
end

try('TIME')

try('HSET', jobs, 'a', '1')
try('HGET', jobs, 'a')
try('HMGET', jobs, 'a')
try('HGETALL', jobs)
try('HVALS', jobs)
try('HLEN', jobs)
try('HEXISTS', jobs, 'a')
try('HSCAN', jobs, 0)
try('PEXPIRE', jobs, 1000)
try('PERSIST', jobs)
try('HDEL', jobs, 'a')

try('RPUSH', ready, 'a', 'b')
try('LPUSH', ready, 'c')
try('LSET', ready, 0, 'd')
try('LINDEX', ready, 0)
try('LRANGE', ready, 0, 0)
try('LLEN', ready)
try('LMOVE', ready, staged, 'RIGHT', 'LEFT')
try('LREM', ready, 0, 'd')
try('LPOP', ready, 1)

try('ZADD', prio, 1, 'a')
try('ZCARD', prio)
try('ZCOUNT', prio, 0, 1)
try('ZSCORE', prio, 'a')
try('ZRANGE', prio, 0, 0)
try('ZRANGEBYSCORE', prio, 0, 1)
try('ZRANGEBYLEX', prio, '-', '+')
try('ZSCAN', prio, 0)
try('ZREMRANGEBYRANK', prio, 1, 1)
try('ZREM', prio, 'a')

try('DEL', jobs, ready, staged, prio)
try('EXISTS', jobs)
try(string.byte(channel) == 123 and 'SPUBLISH' or 'PUBLISH', channel, '')
return failed
