-- Routes by tenant: the routing key `order.created` of tenant `acme` becomes `acme.order.created`, so that a queue bound
-- with `acme.#` gets what belongs to acme and nothing else.
--
-- The tenant is the header `x-tenant`, or what stands before the colon in the name of the user (`acme:alice`). A user
-- with a tenant publishes for no other one. A message without a tenant is rejected.

-- A tenant has to be one word of a routing key: a dot, a star or a hash in it would change what bindings match.
local WORD = "^[%w_-]+$"

local function tenant_of(msg)
	local of_user = string.match(msg.user, "^(.-):")
	local of_message = msg.headers["x-tenant"]
	if of_user and of_message and of_user ~= of_message then
		broker.reject(`user '{msg.user}' does not publish for tenant '{of_message}'`)
	end
	return of_message or of_user
end

return {
	on_publish = function(msg)
		local tenant = tenant_of(msg)
		if tenant == nil then
			broker.reject("no tenant: set the header x-tenant")
		end
		if type(tenant) ~= "string" or not string.match(tenant, WORD) then
			broker.reject("a tenant is a word of letters, digits, _ and -")
		end
		msg.headers["x-tenant"] = tenant
		msg.routing_key = `{tenant}.{msg.routing_key}`
	end,
}
