-- Finding a place in the list of ready jobs. Needs: ready; call unstage() first.

-- The index of the first element at or behind a position, blanks apart, and that element; the length if there
-- is none.
local function lower_bound(position)
  local low, high = 0, call('LLEN', ready)
  while low < high do
    local middle = math.floor((low + high) / 2)
    local at, probe = middle, ''
    while probe == '' and at < high do -- blanks have no position: look behind them
      local window = call('LRANGE', ready, at, math.min(at + 63, high - 1))
      for i = 1, #window do
        probe = window[i]
        if probe ~= '' then break end
        at = at + 1
      end
    end
    if probe ~= '' and (#probe < 7 or sunpack('>I7', probe) < position) then
      low = at + 1
    else
      high = middle
    end
  end
  -- What is left before the place can only be blanks.
  local found = call('LINDEX', ready, low)
  while found == '' do
    low = low + 1
    found = call('LINDEX', ready, low)
  end
  return low, found
end
