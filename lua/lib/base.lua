-- Shared by every script: short names, and the two clocks.
--
-- `now` (milliseconds) decides what is due or expired: the server's time, or ARGV[1] if a test passes
-- its own. `us` (microseconds, always the server's) only makes numbers that must never fall.
local call, sub, byte, unpack = redis.call, string.sub, string.byte, unpack
local spack, sunpack = struct.pack, struct.unpack
local time = call('TIME')
local us = time[1] * 1000000 + time[2]
local now = tonumber(ARGV[1]) or math.floor(us / 1000)
