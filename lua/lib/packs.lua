-- The index of completed jobs: a sorted set of packs, scored by expiry. Needs: base, KEYS completed.
--
-- A pack is a row of ids with a newline between them, which no id contains: the jobs that one exchange
-- completed with one TTL. So an entry, with all that it costs the server, is shared by up to PACK jobs. An
-- id is in the pack, of its record's expiry, once.
local PACK = 128

-- File ids[from..to] as completed until `expires` (a formatted number).
local function file(expires, ids, from, to)
  for at = from, to, PACK do
    call('ZADD', completed, expires, table.concat(ids, '\n', at, math.min(to, at + PACK - 1)))
  end
end

-- The ids of a pack, added to `list`.
local function open_pack(pack, list)
  for id in string.gmatch(pack, '[^\n]+') do list[#list + 1] = id end
end

-- Take out jobs, given as a set of ids that expire at `expires`.
local function unfile(expires, gone)
  expires = string.format(WHOLE, expires)
  for _, pack in ipairs(call('ZRANGEBYSCORE', completed, expires, expires)) do
    local ids, left = {}, {}
    open_pack(pack, ids)
    for _, id in ipairs(ids) do
      if not gone[id] then left[#left + 1] = id end
    end
    if #left < #ids then
      call('ZREM', completed, pack)
      file(expires, left, 1, #left)
    end
  end
end

-- Take out up to `most` jobs that have expired; return their ids.
local function unfile_expired(most)
  local gone, page = {}, 1 -- pages grow: packs may be full, or of one id each
  while #gone < most do
    local packs, opened = call('ZRANGEBYSCORE', completed, '-inf', string.format(WHOLE, now), 'WITHSCORES',
      'LIMIT', '0', string.format('%d', math.min(page, most - #gone))), {}
    if #packs == 0 then break end
    for at = 1, #packs, 2 do
      if #gone == most then break end
      local ids = {}
      open_pack(packs[at], ids)
      opened[#opened + 1] = packs[at]
      local taken = math.min(#ids, most - #gone)
      for i = 1, taken do gone[#gone + 1] = ids[i] end
      file(packs[at + 1], ids, taken + 1, #ids)
    end
    call('ZREM', completed, unpack(opened))
    page = math.min(64, 2 * page)
  end
  return gone
end
