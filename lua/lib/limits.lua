-- Limits, as jobqueue/model/limits.py has them. Needs: base, `stored` (rules in their stored form, or false).
--
-- A limit is a table: running, and with a rate interval and tolerance, in microseconds. `paused`: nothing may be
-- claimed; so it is with rules that this script does not know, which it could not keep.
local queue_limit, group_limit, paused = {}, {}, false

-- Whether all names of a table are among those of another one.
local function known(found, names)
  for name in pairs(found) do
    if not names[name] then return false end
  end
  return true
end

local function is_count(value) return type(value) == 'number' and value >= 1 end

-- nil for one that this script does not know.
local function limit_of(found)
  if type(found) ~= 'table' or not known(found, { running = 1, rate = 1 }) then return nil end
  local limit, rate = { running = found.running }, found.rate
  if limit.running and not is_count(limit.running) then return nil end
  if rate then
    if type(rate) ~= 'table' or not known(rate, { count = 1, per = 1, burst = 1 }) then return nil end
    if not (is_count(rate.count) and is_count(rate.per) and is_count(rate.burst)) then return nil end
    local per, count = rate.per * 1000, rate.count
    local over = per % count
    limit.interval = (per - over) / count + (over > 0 and 1 or 0)
    limit.tolerance = math.max((rate.burst - 1) * limit.interval, 999)
  end
  return limit
end

if stored then
  local read, rules = pcall(cjson.decode, stored)
  if read and type(rules) == 'table' and known(rules, { paused = 1, queue = 1, group = 1, operator = 1 }) then
    queue_limit, group_limit = limit_of(rules.queue or {}), limit_of(rules.group or {})
    paused = rules.paused or not queue_limit or not group_limit
  else
    paused = true
  end
end

-- How many of `want` jobs may start now, and the number `tat` of the rate behind them.
local function admit(limit, held, tat, want)
  local granted, most = want, limit.running
  if most and most - held < want then granted = math.max(0, most - held) end
  if not limit.interval then return granted, tat end
  local instant, interval, tolerance = now * 1000, limit.interval, limit.tolerance
  tat = math.min(tat, instant + tolerance + interval)
  local early = math.max(0, tat - instant)
  if early > tolerance then return 0, tat end
  local room = tolerance - early
  granted = math.min(granted, (room - room % interval) / interval + 1)
  if granted > 0 then tat = math.max(tat, instant) + granted * interval end
  return granted, tat
end

-- The instant from which on one more may start, 0 if nothing is known against it; nil: not before a run ends.
local function opens_at(limit, held, tat)
  if limit.running and held >= limit.running then return nil end
  return limit.interval and math.max(0, math.ceil((tat - limit.tolerance) / 1000)) or 0
end
