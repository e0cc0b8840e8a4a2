-- When callers were seen. Needs: base.
--
-- What is noted of a caller in meta begins with: seen 6, since 6. KEPT: milliseconds after its last call that it is
-- forgotten, longer than any call is repeated. LEFT stands for `since` when a worker has left.
local KEPT = 600000
local LEFT = '\255\255\255\255\255\255'

local function seen_now(noted)
  local at, since = spack('>I6', now), noted and sub(noted, 7, 12)
  return at .. ((not since or since == LEFT) and at or since)
end
