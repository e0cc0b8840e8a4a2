-- Registering waiters. Needs: base, record.

local MOST_WAITERS = 1000

-- Add a waiter to a set of them; the ones that registered first are dropped when there are too many. All are of
-- one size, and none is part of another, since each has a random secret.
local function with_waiter(waiters, waiter)
  local entry = string.char(#waiter) .. waiter
  if string.find(waiters, entry, 1, true) then return waiters end
  waiters = waiters .. entry
  local from, excess = 1, #waiters - MOST_WAITERS * #entry
  while from <= excess do from = from + 1 + byte(waiters, from) end
  return sub(waiters, from)
end

-- Store a live job's record with its waiters, in the short form if it has that.
local function rebuild(rec, job)
  local letter = sub(rec, 1, 1)
  if not SHORT[letter] then return build(job) end
  return (letter == 'q' and 'w' or letter) .. job.core .. spack('>I3', #job.waiters) .. job.waiters .. job.extras
    .. job.payload
end
