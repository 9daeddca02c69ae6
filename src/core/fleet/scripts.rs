//! What the server decides in one step, as scripts. What they answer is read in
//! [`answers`](super::answers).
//!
//! A script runs alone, so each of these is atomic. The server's clock is the only one
//! that is ever compared.
//!
//! | script | |
//! |---|---|
//! | LOOK | what is there of a key: a fresh text, a holder, or the lease for us |
//! | COMMIT | keeps the text of a lease that is still ours |
//! | RENEW | extends a lease that is still ours |
//! | END | ends a lease otherwise |
//! | VOID | deletes a record whose pieces are gone |
//! | PURGE ALL, PURGE ONE | |
//! | JOIN | how many purges there were |
//!
//! Whatever another program has put under our names, or taken away, makes a text
//! unknown and nothing worse: a value of another type is read as none, as are a number
//! that no proxy writes and a lease that is no token or never ends. Where nothing can
//! be written (out of memory, a read-only replica), reading goes on.

use redis::Script;
use std::sync::LazyLock;

/// The functions that all scripts may use.
const COMMON: &str = r"
local function get(name)
  local found = redis.pcall('GET', name)
  if type(found) == 'table' then return false end
  return found
end
local function count(name)
  local found = get(name)
  if not found or not string.find(found, '^%d+$') then return 0 end
  local n = tonumber(found)
  if n > 9007199254740992 then return 0 end
  return n
end
local function number(n)
  return string.format('%.0f', n)
end
local function now()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end
local function is_error(found)
  return type(found) == 'table' and found.err ~= nil
end
";

/// Keys: record, stem of leases, gen, seq, tok, purges of the key. Arguments: longest
/// ttl, grace, lease (in ms; a lease of 0: no wish to lead), nonce, longest record, the
/// highest gen that is known, 1 if a text that is complete is of no use, how long a
/// lease runs at most (ms), how far two clocks may be apart (ms).
///
/// Answers: kind, now, gen, seq, token, ms that the lease still runs, record or nil,
/// purges of the key.
///
/// | kind | |
/// |---|---|
/// | K | a fresh text: the record is it |
/// | F | another holds the lease |
/// | L | the lease is ours |
/// | N | nothing holds it, and there was no wish |
/// | A | the lease can't be written |
///
/// With all but K the record, if there is one, is past its ttl and within its grace.
///
/// A server whose clock is set back would keep everything that much longer. So a text
/// from the future is deleted, for its age can't be known, and a lease is shortened to
/// what it may be at most.
const LOOK: &str = r"
local at = now()
local gen = count(KEYS[3])
if gen < tonumber(ARGV[6]) then
  redis.pcall('SET', KEYS[3], ARGV[6])
  gen = tonumber(ARGV[6])
end
local seq = count(KEYS[4])
local of_key = count(KEYS[6])
local lease = KEYS[2] .. number(gen) .. '.' .. number(of_key)

local record = false
local found = ''
-- One byte more than a record has.
if ARGV[7] == '0' then found = redis.pcall('GETRANGE', KEYS[1], 0, ARGV[5]) end
if type(found) == 'string' and found ~= '' then
  local of, ended, own = string.match(found, '^POEM1 (%d+) (%d+) %d+ %S+ %x+ (%S+) %d+\n')
  if of and tonumber(of) == gen then
    local ahead = tonumber(ended) - at
    local age = math.max(0, -ahead)
    local ttl = tonumber(ARGV[1])
    if own ~= '-' then ttl = math.min(tonumber(own) or 0, ttl) end
    local fits = #found <= tonumber(ARGV[5])
    if ahead > tonumber(ARGV[9]) then
      redis.pcall('DEL', KEYS[1])
    elseif fits and age < ttl + tonumber(ARGV[2]) then
      record = found
      if age < ttl then
        return {'K', at, gen, seq, '', 0, record, of_key}
      end
    end
  end
end

local holder = get(lease)
local left = redis.call('PTTL', lease)
if holder and left >= 0 and string.find(holder, '^%d+:[%w.]+$') then
  if left > tonumber(ARGV[8]) then
    redis.pcall('PEXPIRE', lease, ARGV[8])
    left = tonumber(ARGV[8])
  end
  return {'F', at, gen, seq, holder, left, record, of_key}
end
if ARGV[3] == '0' then
  return {'N', at, gen, seq, '', 0, record, of_key}
end
local id = redis.pcall('INCR', KEYS[5])
if not is_error(id) and id < 1 then
  redis.pcall('DEL', KEYS[5])
  id = redis.pcall('INCR', KEYS[5])
end
if is_error(id) then
  if not string.find(id.err, 'OOM') then redis.pcall('DEL', KEYS[5]) end
  return {'A', at, gen, seq, id.err, 0, record, of_key}
end
local token = number(id) .. ':' .. ARGV[4]
local set = redis.pcall('SET', lease, token, 'PX', ARGV[3])
if is_error(set) then
  return {'A', at, gen, seq, set.err, 0, record, of_key}
end
return {'L', at, gen, seq, token, tonumber(ARGV[3]), record, of_key}
";

/// Keys: record, lease, gen, pieces, purges of the key. Arguments: token, gen, how long
/// the record is kept (ms; 0: it is not), ms since the end of the fetch, the latest
/// time that this end can have been, number of pieces, length, digest, the rest of the
/// record's first line, key, text or '', how long pieces are kept beyond the record
/// (ms), purges of the key.
///
/// Answers: deposed, lost, kept or unkept; why it could not be kept, or ''.
const COMMIT: &str = r"
local at = now()
if get(KEYS[2]) ~= ARGV[1] then return {'deposed', ''} end
local pieces = tonumber(ARGV[6])
if pieces > 0 and redis.pcall('XLEN', KEYS[4]) ~= pieces then
  redis.call('DEL', KEYS[2], KEYS[4])
  redis.call('PUBLISH', KEYS[2], 'x')
  return {'lost', ''}
end

local ended = number(math.max(0, math.min(at - tonumber(ARGV[4]), tonumber(ARGV[5]))))
local how, why = 'kept', ''
local is_purged = count(KEYS[3]) ~= tonumber(ARGV[2]) or count(KEYS[5]) ~= tonumber(ARGV[13])
if ARGV[3] == '0' or is_purged then how = 'unkept' end
if how == 'kept' then
  local old = redis.pcall('GETRANGE', KEYS[1], 0, 255)
  local record = 'POEM1 ' .. ARGV[2] .. ' ' .. ended .. ' ' .. ARGV[9] .. ARGV[10] .. ARGV[11]
  local set = redis.pcall('SET', KEYS[1], record, 'PX', ARGV[3])
  if is_error(set) then
    how, why = 'unkept', set.err
  elseif type(old) == 'string' then
    local token = string.match(old, '^POEM1 %d+ %d+ %d+ (%d%S+) ')
    if token then
      redis.pcall('PEXPIRE', string.sub(KEYS[1], 1, -2) .. 'd:' .. token, 30000)
    end
  end
end

if how == 'unkept' and pieces == 0 and ARGV[11] ~= '' then
  redis.pcall('XADD', KEYS[4], ARGV[7] .. '-0', 'b', ARGV[11])
  pieces = 1
end
if pieces > 0 then
  redis.pcall('XADD', KEYS[4], ARGV[7] .. '-1', 'e', how, 'at', ended, 'h', ARGV[8])
  local left = 10000
  if how == 'kept' then left = tonumber(ARGV[3]) + tonumber(ARGV[12]) end
  redis.pcall('PEXPIRE', KEYS[4], left)
end
redis.call('DEL', KEYS[2])
redis.call('PUBLISH', KEYS[2], 'x')
return {how, why}
";

/// Keys: lease, pieces. Arguments: token, lease (ms). Answers: whether it was ours.
const RENEW: &str = r"
if get(KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
redis.pcall('PEXPIRE', KEYS[2], 60000)
return 1
";

/// Keys: lease, pieces. Arguments: token, length, how, why. Answers: whether it was
/// ours.
const END: &str = r"
if get(KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[1])
if ARGV[3] ~= 'gone' then
  redis.pcall('XADD', KEYS[2], ARGV[2] .. '-1', 'e', ARGV[3], 'w', ARGV[4])
end
redis.pcall('PEXPIRE', KEYS[2], 10000)
redis.call('PUBLISH', KEYS[1], 'x')
return 1
";

/// Keys: record. Arguments: token of the pieces that are gone.
const VOID: &str = r"
local head = redis.pcall('GETRANGE', KEYS[1], 0, 255)
if type(head) ~= 'string' then return 0 end
local token = string.match(head, '^POEM1 %d+ %d+ %d+ (%S+) ')
if token == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
";

/// Keys: gen. Arguments: the highest gen that is known, channel, proxy, how. Answers
/// gen.
const PURGE_ALL: &str = r"
local gen = math.max(count(KEYS[1]), tonumber(ARGV[1])) + 1
redis.call('SET', KEYS[1], number(gen))
redis.call('PUBLISH', ARGV[2], ARGV[3] .. ' ' .. number(gen) .. ' all ' .. ARGV[4])
return gen
";

/// Keys: record, purges of the key, seq. Arguments: channel, proxy, how, key, how long
/// the purge is known (ms). Answers seq.
const PURGE_ONE: &str = r"
redis.call('DEL', KEYS[1])
redis.call('SET', KEYS[2], number(count(KEYS[2]) + 1), 'PX', ARGV[5])
local seq = count(KEYS[3]) + 1
redis.call('SET', KEYS[3], number(seq))
local told = ARGV[2] .. ' ' .. number(seq) .. ' one ' .. ARGV[3] .. ' ' .. ARGV[4]
redis.call('PUBLISH', ARGV[1], told)
return seq
";

/// Keys: gen, seq. Arguments: the highest gen that is known. Answers gen, seq.
const JOIN: &str = r"
local gen = count(KEYS[1])
if gen < tonumber(ARGV[1]) then
  redis.pcall('SET', KEYS[1], ARGV[1])
  gen = tonumber(ARGV[1])
end
return {gen, count(KEYS[2])}
";

/// A script, and what the server calls it once it knows it.
pub(super) struct Code {
    pub text: String,
    pub hash: String,
}

impl Code {
    fn new(own: &str) -> Code {
        let text = format!("{COMMON}{own}");
        let hash = Script::new(&text).get_hash().to_string();
        Code { text, hash }
    }
}

/// All scripts.
pub(super) struct Scripts {
    pub look: Code,
    pub commit: Code,
    pub renew: Code,
    pub end: Code,
    pub void: Code,
    pub purge_all: Code,
    pub purge_one: Code,
    pub join: Code,
}

pub(super) static SCRIPTS: LazyLock<Scripts> = LazyLock::new(|| Scripts {
    look: Code::new(LOOK),
    commit: Code::new(COMMIT),
    renew: Code::new(RENEW),
    end: Code::new(END),
    void: Code::new(VOID),
    purge_all: Code::new(PURGE_ALL),
    purge_one: Code::new(PURGE_ONE),
    join: Code::new(JOIN),
});
