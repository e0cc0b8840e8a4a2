-- The order of sorted sets. Needs: base.

-- The order of bytes. That of `<` is the one of the server's locale.
local function precedes(one, other)
  for i = 1, math.min(#one, #other) do
    local a, b = byte(one, i), byte(other, i)
    if a ~= b then return a < b end
  end
  return #one < #other
end

-- The rank of the first member behind a score and a member.
local function rank_behind(key, score, member)
  score = string.format(WHOLE, score)
  local low, high = call('ZCOUNT', key, '-inf', '(' .. score), call('ZCOUNT', key, '-inf', score)
  while low < high do
    local middle = math.floor((low + high) / 2)
    if precedes(member, call('ZRANGE', key, middle, middle)[1]) then high = middle else low = middle + 1 end
  end
  return low
end
