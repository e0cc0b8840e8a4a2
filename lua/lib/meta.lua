-- The queue's few counters and the caller's last call, read once and written once per call. Needs: base,
-- KEYS meta, caller ('' where nothing is remembered).
--
-- `tick`: the last number given. Fences, incarnations and positions are ticks. A tick is at least the
-- server's time in microseconds, so that they keep rising even when a crash or a failover has lost the
-- counter; and at least FLOOR (June 2025), whatever the server's clock says.
-- `blanks`: how many elements of ready and staged are empty (see ready.lua).
-- `ended`: how many jobs have ended since the queue was made, for rates.
-- `named`: "1" if the queue was added to the set of queues. The answer of insert and exchange begins with it; there it
-- is "new" when the queue does not know the caller: the queue may have been empty and dropped from the set since.
-- `rules`: what the queue lets its workers claim, in the stored form of `jobqueue/storage/rules.py`; none as a rule.
-- `grouped`: "1" if jobs with a group were ever created here: then there may be more to look at than plain lines.
-- `expiring`: "1" once a job was inserted that has to start in time; only then the index of these is looked at.
-- The other fields are callers: see calls.lua.
local FLOOR = 1750000000000000
local counters = call('HMGET', meta, 'tick', 'blanks', 'named', 'ended', caller, 'rules', 'grouped', 'expiring')
local tick = math.max(tonumber(counters[1]) or 0, us, FLOOR)
local blanks = tonumber(counters[2]) or 0
local named = counters[3] or ''
local ended_ever = tonumber(counters[4]) or 0
local grouped = counters[6] or counters[7]

-- With `note`, what is noted of the caller's call.
local function save_meta(note)
  local last, empty, ended = string.format(WHOLE, tick), string.format('%d', blanks), string.format(WHOLE, ended_ever)
  if note then
    call('HSET', meta, 'tick', last, 'blanks', empty, 'ended', ended, caller, note)
  else
    call('HSET', meta, 'tick', last, 'blanks', empty, 'ended', ended)
  end
end
