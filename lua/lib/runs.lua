-- Runs of jobs to create with equal options. Needs: base.
--
-- A run is: how many 2, reuse 1 ("r" return, "f" rerun failed, "a" rerun), kind 1 (bits of its low half: 1 the caller
-- waits, 2 the jobs have extras, 4 these begin with a group, 8 they replace one that waits; and 64: they have to start in
-- time, which is the last of their extras), due kind 1 ("d" delay, "a" instant; "b" and "i" the
-- same, but not before the job that is replaced was due), due 6, priority 2, max_attempts 4, max_stalls 4,
-- ttl 6. A body is the payload; where jobs have extras, size of extras 4, extras, payload.
local RUN = 27

local function jobs_in(runs)
  local told = 0
  for at = 1, #runs, RUN do told = told + sunpack('>I2', runs, at) end
  return told
end

-- Whether any of them replaces a job that waits; whether any has a group.
local function looks_at(runs)
  local replaces, in_groups = false, false
  for at = 1, #runs, RUN do
    local kind = byte(runs, at + 3)
    replaces, in_groups = replaces or kind % 16 >= 8, in_groups or kind % 8 >= 4
  end
  return replaces, in_groups
end
