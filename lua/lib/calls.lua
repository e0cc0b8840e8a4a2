-- The memory of calls: a call that is sent again, because its answer was lost, is carried out once.
-- Needs: base, caller, number, meta, seen.
--
-- A caller is worker .. "\0" .. token: one start of a store, and a place among the calls that it has under way
-- together; the worker is empty where none is concerned. The numbers (6) of a caller's calls rise. Noted of each
-- in meta: seen 6, since 6, number 6, what the script answers again.
local noted = counters[5]
if noted and #noted < 18 then noted = nil end
local before = noted and sunpack('>I6', noted, 13) or 0
local ahead = sunpack('>I6', number) - before -- 0: this call was carried out; less: a later one was, too
if ahead < 0 then return redis.error_reply('STALE a later call of this caller was carried out') end

-- Note that this call was carried out, and what it answers when it is sent again; save the counters. Also of a call
-- that has changed nothing: a copy that arrives late could find more to do. Of one that is `passing`, which makes no
-- queue, nothing stays where there was none.
local function remember(what, passing)
  save_meta(seen_now(noted) .. number .. what)
  if not passing then
    if named == '' then call('PERSIST', meta) end
  elseif not counters[1] then
    call('PEXPIRE', meta, KEPT)
  end
  if noted then return end
  if named ~= '' then named = 'new' end
  -- A new caller: forget a few that are long gone, found at random, so that there are never many of them even
  -- where nobody sweeps.
  local some = call('HSCAN', meta, us % 65536, 'COUNT', 4)[2]
  for i = 1, #some, 2 do
    local note = some[i + 1]
    if string.find(some[i], '%z') and (#note < 12 or sunpack('>I6', note) + KEPT <= now) then
      call('HDEL', meta, some[i])
    end
  end
end
