-- The queue's few counters, read once and written once per call. Needs: base, KEYS meta.
--
-- `tick`: the last number given. Fences, incarnations and positions are ticks. A tick is at least the
-- server's time in microseconds, so that they keep rising even when a crash or a failover has lost the
-- counter; and at least FLOOR (June 2025), whatever the server's clock says.
-- `blanks`: how many elements of ready and staged are empty (see ready.lua).
-- `ended`: how many jobs have ended since the queue was made, for rates.
local FLOOR = 1750000000000000
local counters = call('HMGET', meta, 'tick', 'blanks', 'named', 'ended')
local tick = math.max(tonumber(counters[1]) or 0, us, FLOOR)
local blanks = tonumber(counters[2]) or 0
local ended_ever = tonumber(counters[4]) or 0

local function save_meta()
  call('HSET', meta, 'tick', string.format('%.0f', tick), 'blanks', blanks, 'ended',
    string.format('%.0f', ended_ever))
end
