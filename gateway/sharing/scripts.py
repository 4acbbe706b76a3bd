"""What Redis does in one step, in Lua. Every script is atomic; none of them waits, and each looks at a few hashes.

All keys begin with a prefix, and scripts make their names themselves: this is for one Redis (or one with replicas
behind Sentinel or a managed service), not for Redis Cluster.

    <prefix>epoch         hash: id, run (of the Redis it began on), since (ms)
    <prefix>m:<name>      hash: who uses a replica's name: boot, gen, epoch (joined), alive (ms)
    <prefix>a:<account>   hash: R (all reserved), r:<name> (by one), h:<name> (of that for requests), t:<name> (spans)
                          u:<name> (spans in which something is presumed), z:<window> (the starts that are kept)
    <prefix>d:<account>   sorted set: name, and until when its reservations live (ms)
    <prefix>n:<name>      set: accounts in which a replica has reservations, or something presumed
    <prefix>s:<account>:<window><start>  hash: "" (spent by all), <name> (by one), p:<name> (presumed of one)
    <prefix>q:<account>   hash: rk, rt, tk, tt (taken from the two buckets, and when), c:<name>|<boot> (requests)
    <prefix>y:<who>       list: when somebody tried to sign in (ms)

Amounts are nano-USD. They are strings in Lua, which Redis adds as 64-bit integers; Lua compares them as doubles, exact
up to 2^53 (9 million USD). Above that a comparison leaves a margin, so that rounding never grants anything.
"""

from hashlib import sha1
from typing import Final

from gateway.sharing.rate_scripts import COUNT, ENTER, EXIT, PEEK, RATES, TRY

MEMBER_ALIVE_MS: Final = 2000
"""A replica that was not heard for so long may be replaced by another of its name."""
QUARANTINE_MS: Final = 1200
"""How long after a new beginning nothing is granted, so that every replica can say what it has."""
COUNTED_ALIVE_MS: Final = 10_000
"""Requests on their way at a replica that was not heard for so long count against no limit any more."""
GONE: Final = b"fence"
"""The answer to whoever is not known, or not any more: join anew."""

_COMMON: Final = f"""
local P = KEYS[1]
local MEMBER_ALIVE_MS, QUARANTINE_MS, COUNTED_ALIVE_MS = {MEMBER_ALIVE_MS}, {QUARANTINE_MS}, {COUNTED_ALIVE_MS}
"""
_FUNCTIONS: Final = """
local EXACT_MAX, MARGIN = 9007199254740992, 4096
local WINDOWS = {'d', 'w', 'm', 'e'}
local SPANS_MAX = 3
local call = redis.call
local function now_ms()
  local t = call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end
local function text(number)
  return string.format('%.0f', number)
end
local function negative(amount)
  if amount == '0' then return amount end
  return amount:sub(1, 1) == '-' and amount:sub(2) or '-' .. amount
end
local function is_fenced()
  if call('HGET', P .. 'epoch', 'id') ~= ARGV[1] then return true end
  local m = call('HMGET', P .. 'm:' .. ARGV[2], 'boot', 'gen')
  return m[1] ~= ARGV[3] or m[2] ~= ARGV[4]
end
local function span_key(account, window, start)
  return P .. 's:' .. account .. ':' .. window .. start
end
local function note_span(account, window, start)
  -- They have no end of their own: a Redis that is full may forget what has one. The oldest goes when a new one comes.
  local a, field, starts = P .. 'a:' .. account, 'z:' .. window, {}
  local known = call('HGET', a, field) or ''
  if string.find(' ' .. known, ' ' .. start .. ' ', 1, true) then return end
  for one in string.gmatch(known .. start, '%S+') do starts[#starts + 1] = one end
  table.sort(starts, function(one, other) return tonumber(one) < tonumber(other) end)
  while #starts > SPANS_MAX do call('DEL', span_key(account, window, table.remove(starts, 1))) end
  call('HSET', a, field, table.concat(starts, ' ') .. ' ')
end
local function add_spent(account, window, start, field, change)
  local key = span_key(account, window, start)
  call('HINCRBY', key, field, change)
  call('HINCRBY', key, '', change)
  if window ~= 'e' then note_span(account, window, start) end
end
local function drop_spent(key, field)
  local old = call('HGET', key, field)
  if old then
    call('HINCRBY', key, '', negative(old))
    call('HDEL', key, field)
  end
end
local function set_spent(account, window, start, field, amount)
  drop_spent(span_key(account, window, start), field)
  add_spent(account, window, start, field, amount)
end
local function spans_of(account, name)
  local spans, kept = {}, call('HGET', P .. 'a:' .. account, 't:' .. name)
  for one in string.gmatch(kept or '', '%d+') do spans[#spans + 1] = one end
  return spans
end
local function drop_reserved(account, name)
  local a = P .. 'a:' .. account
  local old = call('HGET', a, 'r:' .. name)
  if old then
    call('HINCRBY', a, 'R', negative(old))
    call('HDEL', a, 'r:' .. name)
  end
  call('ZREM', P .. 'd:' .. account, name)
end
local function keep_reserved(account, name, lease_ms, spans)
  call('ZADD', P .. 'd:' .. account, 'GT', text(now_ms() + lease_ms), name)
  call('HSET', P .. 'a:' .. account, 't:' .. name, spans)
  call('SADD', P .. 'n:' .. name, account)
end
local function presume(account, window, start, name, amount)
  local a, span = P .. 'a:' .. account, window .. start
  local known = call('HGET', a, 'u:' .. name) or ''
  if not string.find(known, span .. ' ', 1, true) then call('HSET', a, 'u:' .. name, known .. span .. ' ') end
  add_spent(account, window, start, 'p:' .. name, amount)
  call('SADD', P .. 'n:' .. name, account)
end
local function reap(account, now)
  -- Nobody extended these: what was spare comes back, what requests had counts at its worst.
  for _, name in ipairs(call('ZRANGEBYSCORE', P .. 'd:' .. account, '-inf', text(now), 'LIMIT', 0, 16)) do
    local a = P .. 'a:' .. account
    local held = call('HGET', a, 'h:' .. name)
    drop_reserved(account, name)
    call('HDEL', a, 'h:' .. name)
    if held and held ~= '0' then
      for place, start in ipairs(spans_of(account, name)) do
        presume(account, WINDOWS[place], start, name, held)
      end
    end
    call('HDEL', P .. 'm:' .. name, 'gen')
  end
end
local function state_of(found, account, first)
  found[#found + 1] = call('HGET', P .. 'a:' .. account, 'R') or '0'
  for place, window in ipairs(WINDOWS) do
    found[#found + 1] = call('HGET', span_key(account, window, ARGV[first + place - 1]), '') or '0'
  end
end
local function left_of(limit, spent, reserved)
  local left = tonumber(limit) - tonumber(spent) - tonumber(reserved)
  if tonumber(limit) > EXACT_MAX then left = left - MARGIN end
  return left
end
"""

BEGIN: Final = """
-- name, boot, gen, run, nonce: take a name, and find the epoch or begin one.
local now, m = now_ms(), P .. 'm:' .. ARGV[1]
local known = call('HMGET', m, 'boot', 'alive')
if known[1] and known[1] ~= ARGV[2] then
  local silent = now - tonumber(known[2] or '0')
  if silent >= 0 and silent < MEMBER_ALIVE_MS then return {'taken', MEMBER_ALIVE_MS - silent} end
end
local epoch = call('HMGET', P .. 'epoch', 'id', 'run')
if not epoch[1] or epoch[2] ~= ARGV[4] then
  epoch[1] = ARGV[5]
  call('HSET', P .. 'epoch', 'id', ARGV[5], 'run', ARGV[4], 'since', text(now))
end
call('HSET', m, 'boot', ARGV[2], 'gen', ARGV[3], 'alive', text(now))
call('HDEL', m, 'epoch')
return {'ok', epoch[1], call('SMEMBERS', P .. 'n:' .. ARGV[1]), known[1] and known[1] ~= ARGV[2] and 1 or 0}
"""
REGISTER: Final = """
-- epoch, name, boot, gen, lease_ms, heir, then by account: id, reserved, kept, spans, count, (window, start, spent).
-- An heir speaks for a process that was killed. What that one had sent counts at its worst, as nobody will ever know:
-- what the heir's ledger made of it is in what it says was spent, and the rest is presumed.
if is_fenced() then return {'fence'} end
local name, heir, at = ARGV[2], ARGV[6] == '1', 7
while ARGV[at] do
  local account, reserved, kept, spans = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
  local a = P .. 'a:' .. account
  local carried, before = {}, {}
  local held = call('HGET', a, 'h:' .. name)
  for place, start in ipairs(spans_of(account, name)) do
    if heir and held then carried[WINDOWS[place] .. start] = tonumber(held) end
  end
  for span in string.gmatch(call('HGET', a, 'u:' .. name) or '', '%S+') do
    local key = P .. 's:' .. account .. ':' .. span
    local known = call('HGET', key, 'p:' .. name)
    drop_spent(key, 'p:' .. name)
    if heir and known then carried[span] = (carried[span] or 0) + tonumber(known) end
  end
  for span in pairs(carried) do
    before[span] = tonumber(call('HGET', P .. 's:' .. account .. ':' .. span, name) or '0')
  end
  drop_reserved(account, name)
  call('HDEL', a, 'h:' .. name, 't:' .. name, 'u:' .. name)
  call('SREM', P .. 'n:' .. name, account)
  if reserved ~= '0' then
    call('HINCRBY', a, 'R', reserved)
    call('HSET', a, 'r:' .. name, reserved, 'h:' .. name, kept)
    keep_reserved(account, name, tonumber(ARGV[5]), spans)
  end
  local last = at + 4 + 3 * tonumber(ARGV[at + 4])
  for one = at + 5, last, 3 do set_spent(account, ARGV[one], ARGV[one + 1], name, ARGV[one + 2]) end
  for span, amount in pairs(carried) do
    local since = tonumber(call('HGET', P .. 's:' .. account .. ':' .. span, name) or '0') - before[span]
    if amount > since then presume(account, span:sub(1, 1), span:sub(2), name, text(amount - math.max(0, since))) end
  end
  at = last + 1
end
return {'ok'}
"""
REVIVE: Final = """
-- epoch, name, boot, gen, then: account, window, start, other name, spent. What is remembered of those who are away.
if is_fenced() then return {'fence'} end
for at = 5, #ARGV, 5 do
  local account, window, start, other, amount = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3], ARGV[at + 4]
  if call('HGET', P .. 'm:' .. other, 'epoch') ~= ARGV[1] then
    local known = call('HGET', span_key(account, window, start), other)
    if not known or tonumber(known) < tonumber(amount) then set_spent(account, window, start, other, amount) end
  end
end
return {'ok'}
"""
BEAT: Final = """
-- epoch, name, boot, gen: still here, and all is registered. Gives how long until anything may be granted.
if is_fenced() then return {'fence'} end
local now = now_ms()
call('HSET', P .. 'm:' .. ARGV[2], 'alive', text(now), 'epoch', ARGV[1])
local age = now - tonumber(call('HGET', P .. 'epoch', 'since') or '0')
return {'ok', age < 0 and 0 or math.max(0, QUARANTINE_MS - age)}  -- below 0 its clock was set back
"""
LEAVE: Final = """
-- epoch, name, boot, gen: going, with nothing left behind.
if is_fenced() then return {'fence'} end
call('DEL', P .. 'm:' .. ARGV[2])
return {'ok'}
"""
RESERVE: Final = """
-- epoch, name, boot, gen, amount, spare, spare's share, lease_ms, starts of day, week, month and ever, then by account:
-- id, and its budgets for these windows ('' for none).
if is_fenced() then return {'fence'} end
local now = now_ms()
local age = now - tonumber(call('HGET', P .. 'epoch', 'since') or '0')
if age >= 0 and age < QUARANTINE_MS then return {'young'} end
local name, amount, spare, least = ARGV[2], tonumber(ARGV[5]), tonumber(ARGV[6]), nil
for at = 13, #ARGV, 5 do
  reap(ARGV[at], now)
  local state = {}
  state_of(state, ARGV[at], 9)
  for place = 1, 4 do
    local limit = ARGV[at + place]
    if limit ~= '' then
      local left = left_of(limit, state[place + 1], state[1])
      if not least or left < least then least = left end
    end
  end
end
local granted = amount == 0 or not least or amount <= least
local extra = granted and spare > 0 and least and least - amount >= spare * tonumber(ARGV[7])
local found = {granted and 'ok' or 'no', extra and 1 or 0}
local spans = table.concat({ARGV[9], ARGV[10], ARGV[11], ARGV[12]}, ',')
for at = 13, #ARGV, 5 do
  local account = ARGV[at]
  if granted and (amount > 0 or extra) then
    local a = P .. 'a:' .. account
    for _, more in ipairs({ARGV[5], extra and ARGV[6] or '0'}) do
      call('HINCRBY', a, 'R', more)
      call('HINCRBY', a, 'r:' .. name, more)
    end
    call('HINCRBY', a, 'h:' .. name, ARGV[5])
    keep_reserved(account, name, tonumber(ARGV[8]), spans)
  end
  state_of(found, account, 9)
end
return found
"""
TELL: Final = """
-- epoch, name, boot, gen, lease_ms, then by account: id, change of reserved, change of what requests have, spans,
-- count, (window, start, change of spent) each.
if is_fenced() then return {'fence'} end
local name, at = ARGV[2], 6
while ARGV[at] do
  local account, change, held, spans = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
  local a = P .. 'a:' .. account
  if change ~= '0' then
    call('HINCRBY', a, 'R', change)
    call('HINCRBY', a, 'r:' .. name, change)
  end
  local reserved = call('HGET', a, 'r:' .. name)
  if reserved and reserved ~= '0' then
    call('HINCRBY', a, 'h:' .. name, held)
    keep_reserved(account, name, tonumber(ARGV[5]), spans)
  else
    drop_reserved(account, name)
    call('HDEL', a, 'h:' .. name, 't:' .. name)
    if call('HEXISTS', a, 'u:' .. name) == 0 then call('SREM', P .. 'n:' .. name, account) end
  end
  local last = at + 4 + 3 * tonumber(ARGV[at + 4])
  for one = at + 5, last, 3 do add_spent(account, ARGV[one], ARGV[one + 1], name, ARGV[one + 2]) end
  at = last + 1
end
return {'ok'}
"""
LOOK: Final = """
-- starts of day, week, month and ever, then accounts. Gives of each: reserved, and all of the four spans.
local found = {}
for at = 5, #ARGV do
  found[#found + 1] = call('HGET', P .. 'a:' .. ARGV[at], 'R') or '0'
  for place, window in ipairs(WINDOWS) do
    found[#found + 1] = call('HGETALL', span_key(ARGV[at], window, ARGV[place]))
  end
end
return found
"""
BODIES: Final[dict[str, str]] = {
    "begin": BEGIN,
    "register": REGISTER,
    "revive": REVIVE,
    "beat": BEAT,
    "leave": LEAVE,
    "reserve": RESERVE,
    "tell": TELL,
    "look": LOOK,
    "enter": RATES + ENTER,
    "exit": RATES + EXIT,
    "count": RATES + COUNT,
    "peek": RATES + PEEK,
    "try": TRY,
}
SCRIPTS: Final[dict[str, str]] = {name: _COMMON + _FUNCTIONS + body for name, body in BODIES.items()}
DIGESTS: Final[dict[str, str]] = {
    name: sha1(text.encode(), usedforsecurity=False).hexdigest() for name, text in SCRIPTS.items()
}
"""What Redis calls them by."""
