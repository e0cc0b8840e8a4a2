#!lua flags=allow-oom
-- set_ttl: make ended jobs expire at another time.
--
-- KEYS: jobs completed failed cancelled meta
-- ARGV: now caller number, then for each job: id ttl_ms
-- Returns: one status per job, of the first at least: "U" updated, "N" not found, "L" live
-- Invariants: the index and the record say the same.

-- include: base
local jobs, completed, failed, cancelled, meta = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local caller, number = ARGV[2], ARGV[3]
-- include: meta
-- include: seen
-- include: calls
-- include: record
-- include: extras
-- include: packs

if ahead == 0 then return sub(noted, 19) end

local keys = { C = true, F = failed, X = cancelled }
local status, bytes = {}, 0
-- Completed jobs: what each expired at as a set of ids by expiry, and when each is to expire. They are moved
-- together at the end: jobs kept at one moment share an expiry, and one by one each would open the packs of all.
local unfiled, moved = {}, {}
for i = 4, #ARGV, 2 do
  if bytes >= BUDGET then break end
  local id, expires = ARGV[i], now + tonumber(ARGV[i + 1])
  local record = call('HGET', jobs, id)
  local key = record and keys[sub(record, 1, 1)]
  if not record or not sound(record) or expired(record) then
    status[#status + 1] = 'N'
  elseif not key then
    status[#status + 1] = 'L'
  else
    local updated = sub(record, 1, MARK - 1) .. spack('>I7', expires) .. sub(record, ATTEMPTS)
    if key == true then
      if not moved[id] then
        local before = sunpack('>I7', record, MARK)
        unfiled[before] = unfiled[before] or {}
        unfiled[before][id] = true
      end
      moved[id] = expires
    else
      local job = parse(updated)
      if letter_until(job) and letter_until(job) < expires then
        keep_letter(job, expires)
        updated = build(job)
      end
      call('ZADD', key, kept_until(job), id)
    end
    call('HSET', jobs, id, updated)
    status[#status + 1] = 'U'
    bytes = bytes + #record
  end
end
for expires, gone in pairs(unfiled) do unfile(expires, gone) end
local filed = {}
for id, expires in pairs(moved) do
  filed[expires] = filed[expires] or {}
  table.insert(filed[expires], id)
end
for expires, ids in pairs(filed) do file(string.format(WHOLE, expires), ids, 1, #ids) end
remember(table.concat(status), true)
return table.concat(status)
