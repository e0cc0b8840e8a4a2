-- Shared by every script: short names, and the two clocks.
--
-- `now` (milliseconds) decides what is due or expired: the server's time, or ARGV[1] if a test passes
-- its own. `us` (microseconds, always the server's) only makes numbers that must never fall.
local call, sub, byte, unpack = redis.call, string.sub, string.byte, unpack
local spack, sunpack = struct.pack, struct.unpack
local time = call('TIME')
local us = time[1] * 1000000 + time[2]
local now = tonumber(ARGV[1]) or math.floor(us / 1000)
-- How a whole number is written, also as an argument of a command, where the server's own way is slow. `%d` costs
-- a tenth of `%.0f`, but holds no more than 2^31 on a machine of 32 bits.
local WHOLE = #string.format('%d', 1099511627776) == 13 and '%d' or '%.0f'
-- About how many bytes of records one call reads, writes or answers; what is left over, the next one does. So
-- that no call holds the server up, and its answer does not hold up those behind it.
local BUDGET = 1048576
