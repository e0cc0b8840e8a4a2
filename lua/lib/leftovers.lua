-- Taking `ids`, a set, out of all indexes, wherever they are. Needs: base, meta, ready, groups, packs,
-- KEYS running ready prio scheduled failing completed failed cancelled expiring.
--
-- For an id that is used again although its record could not be read: that does not tell where the id is indexed, and
-- what is left of it there would claim the new job a second time, or delete it. Reads every index, so it takes as
-- long as the queue; it happens only after foreign hands have written.
local PAGE = 1000
unstage()
for from = 0, call('LLEN', ready) - 1, PAGE do
  for i, element in ipairs(call('LRANGE', ready, from, from + PAGE - 1)) do
    if element ~= '' and ids[sub(element, 8)] then
      call('LSET', ready, from + i - 1, '')
      blanks = blanks + 1
    end
  end
end
for _, key in ipairs({ prio, scheduled, failing, expiring }) do
  local gone = {}
  for from = 0, call('ZCARD', key) - 1, PAGE do
    for _, member in ipairs(call('ZRANGE', key, from, from + PAGE - 1)) do
      if ids[sub(member, 8)] then gone[#gone + 1] = member end
    end
  end
  for _, member in ipairs(gone) do call('ZREM', key, member) end
end
if grouped then leave_lines(ids) end
local filed = {} -- expiries
for from = 0, call('ZCARD', completed) - 1, PAGE do
  local page = call('ZRANGE', completed, from, from + PAGE - 1, 'WITHSCORES')
  for at = 1, #page, 2 do
    local pack = {}
    open_pack(page[at], pack)
    for _, id in ipairs(pack) do
      if ids[id] then filed[#filed + 1] = tonumber(page[at + 1]) end
    end
  end
end
for _, expires in ipairs(filed) do unfile(expires, ids) end
for id in pairs(ids) do
  call('HDEL', running, id)
  call('ZREM', failed, id)
  call('ZREM', cancelled, id)
end
