-- Decides many questions in one call. KEYS: three for each question (address, token, keeping); ARGV:
-- the limit of each, 0 where the question has no such part. Answers two numbers a question:
--   0 pass and keep, 1 pass, 2 over the address's limit, 3 over the token's; and microseconds to wait.
-- All of a question is counted or nothing. Up to EXACT a limit is a list of the times of its last
-- passes: there is room unless the limit-th most recent one is inside the window. Above, a hash of
-- one-second buckets, summed. The clock is this server's, one for all gateways.
local WINDOW, EXACT = 60, 1000
local time = redis.call('TIME')
local second, micro = tonumber(time[1]), tonumber(time[2])
local now = second * 1000000 + micro
local stamp = string.format('%.0f', now)
local sums = {}

local function sum_of(key)
  local known = sums[key]
  if known then return known end
  known = { passes = 0, new = 0, oldest = second }
  local all, gone = redis.call('HGETALL', key), {}
  for i = 1, #all, 2 do
    local at = tonumber(all[i])
    if at < second - WINDOW or at > second then
      gone[#gone + 1] = all[i]
    else
      known.passes = known.passes + tonumber(all[i + 1])
      if at < known.oldest then known.oldest = at end
    end
  end
  -- Few at a time: Lua's stack bounds what unpack may give.
  for i = 1, #gone, 1000 do
    redis.call('HDEL', key, unpack(gone, i, math.min(i + 999, #gone)))
  end
  sums[key] = known
  return known
end

local function wait(key, limit)
  if limit > EXACT then
    local sum = sum_of(key)
    if sum.passes + sum.new < limit then return 0 end
    return (sum.oldest + WINDOW + 1) * 1000000 - now
  end
  if redis.call('LLEN', key) < limit then return 0 end
  local at = tonumber(redis.call('LINDEX', key, limit - 1))
  if at > now then
    -- This server's clock was set back: what it said before means nothing.
    redis.call('DEL', key)
    return 0
  end
  return math.max(0, at + WINDOW * 1000000 + 1 - now)
end

local function count(key, limit)
  if limit > EXACT then
    local sum = sum_of(key)
    sum.new = sum.new + 1
    return
  end
  if redis.call('LPUSH', key, stamp) > limit then redis.call('LTRIM', key, 0, limit - 1) end
  redis.call('PEXPIRE', key, (WINDOW + 1) * 1000)
end

local answers = {}
for i = 1, #KEYS, 3 do
  local address, token, keeping = tonumber(ARGV[i]), tonumber(ARGV[i + 1]), tonumber(ARGV[i + 2])
  local verdict, pause = 1, wait(KEYS[i], address)
  if pause > 0 then
    verdict = 2
  elseif token > 0 then
    pause = wait(KEYS[i + 1], token)
    if pause > 0 then verdict = 3 end
  end
  if verdict == 1 then
    count(KEYS[i], address)
    if token > 0 then count(KEYS[i + 1], token) end
    if keeping > 0 and wait(KEYS[i + 2], keeping) == 0 then
      count(KEYS[i + 2], keeping)
      verdict = 0
    end
  end
  answers[#answers + 1] = verdict
  answers[#answers + 1] = pause
end

for key, sum in pairs(sums) do
  if sum.new > 0 then
    redis.call('HINCRBY', key, second, sum.new)
    redis.call('PEXPIRE', key, (WINDOW + 2) * 1000)
  end
end
return answers
