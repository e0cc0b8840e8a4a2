-- Counting completed jobs. Needs: base, KEYS completed.

-- How many ids there are in the first `packs` packs.
local function count_ids(packs)
  local ids = 0
  for from = 0, packs - 1, 64 do
    -- By rank: a LIMIT would be counted off from the first entry for each page.
    for _, pack in ipairs(call('ZRANGE', completed, from, math.min(packs, from + 64) - 1)) do
      local at = 0
      repeat
        ids, at = ids + 1, string.find(pack, '\n', at + 1, true)
      until not at
    end
  end
  return ids
end
