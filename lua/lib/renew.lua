-- Replacing jobs that wait. Needs: base, meta, record, waiters, ready, groups, search, leave, promote, names moved renew move, KEYS jobs running scheduled failing.
moved = {} -- jobs that leave their place, each with its id and the record of before

-- The fields of extras that stay with a job: its history.
local function history_of(extras)
  local kept, at = '', 1
  while at <= #extras do
    local behind = at + 5 + sunpack('>I4', extras, at + 1)
    if byte(extras, at) == 97 then kept = kept .. sub(extras, at, behind - 1) end
    at = behind
  end
  return kept
end

-- Make the record of a job that waits that of a new one, in all but its seq, its creation, what it has been through and
-- who waits; nil if it does not wait. `position`: its place if it is moved to the back of the ready jobs; the second
-- answer says whether it is.
function renew(id, record, options, due, debounce, extras, wait, body, position)
  local letter = sub(record, 1, 1)
  if letter == 'C' or letter == 'F' or letter == 'X' or call('HGET', running, id) then return nil end
  local job, old = parse(record), parse(record)
  if debounce then due = math.max(due, (sunpack('>I6', job.core, CORE_DUE))) end
  local more = ''
  if extras then
    local size = sunpack('>I4', body)
    more, body = sub(body, 5, 4 + size), sub(body, 5 + size)
  end
  job.core = sub(options, 2) .. '\0\0\0\0\0\0' .. sub(job.core, CORE_CREATED, CORE_CREATED + 5) .. spack('>I6', due)
    .. '\0\0' .. seq_of(job)
  job.extras, job.payload, job.saving, job.updated = more .. history_of(job.extras), body, 0, now
  if wait then job.waiters = with_waiter(job.waiters, reply_to) end
  local group, before = grouped and group_of(job.extras), grouped and group_of(old.extras)
  local stays, back =
    job.state == 'Q' and due <= now and priority_of(job) == priority_of(old) and group == before, false
  if stays then
    if group then reweigh(old, job, id, group) end
  else
    moved[#moved + 1] = { id = id, old = old, job = job, due = due }
    if due <= now then
      job.state, job.mark, back = 'Q', position, true
    else
      job.state, job.mark = job.attempts > 0 and 'R' or 'S', 0
    end
  end
  return job, back
end

-- Take what was moved out of its index, and put what waits for its time into the right one.
function move()
  unstage()
  for _, one in ipairs(moved) do leave_index(one.old, one.id) end
  for _, one in ipairs(moved) do
    local state = one.job.state
    if state ~= 'Q' then
      local key = state == 'R' and failing or scheduled
      call('ZADD', key, one.due, seq_of(one.job) .. one.id)
      local first = next_due()
      if first == one.due then wake() end
    end
  end
  drop_blanks()
end
