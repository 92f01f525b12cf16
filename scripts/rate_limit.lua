-- Limits how much each user publishes: LIMIT messages in each window of WINDOW seconds, over all connections and all worker
-- threads of the broker. What is above it is rejected: publishers with confirms get basic.nack, and should wait and try again.
--
-- The count is kept in broker.shared and ends with its window; a user that is quiet costs nothing. With `on_error: pass` a full
-- broker.shared lets messages through instead of rejecting them.

local LIMIT = 1000
local WINDOW = 1

-- These are not limited.
local FREE = { monitoring = true }

return {
	on_publish = function(msg)
		local user = msg.user
		if FREE[user] then
			return
		end
		if broker.shared.add(user, 1, WINDOW) > LIMIT then
			broker.reject(`user '{user}' publishes more than {LIMIT} messages in {WINDOW} s`)
		end
	end,
}
