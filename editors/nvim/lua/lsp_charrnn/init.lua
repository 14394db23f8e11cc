-- What the keys do with the suggestion that is shown. How it is asked for and shown is `builtin`'s business or `own`'s.
local text = require('lsp_charrnn.text')
local M = {}

--- The ghost text that this Neovim has: `builtin` on 0.12, else `own`.
---@return table
function M.ghost()
  local builtin = require('lsp_charrnn.builtin')
  return vim.g.lsp_charrnn_ghost ~= 'own' and builtin.usable() and builtin or require('lsp_charrnn.own')
end

--- Insert as much of the suggestion that is shown as `part` makes of it.
---@param part fun(text: string): string
---@return boolean taken
local function take(part)
  local ghost = M.ghost()
  local item = ghost.current()
  if not item then return false end
  local taken = part(item.text)
  text.insert(taken)
  local client = vim.lsp.get_client_by_id(item.client_id)
  if taken == item.text and item.command and client then -- accepted as a whole: the server counts it
    local params = { command = item.command.command, arguments = item.command.arguments }
    require('lsp_charrnn.own').call(client, 'request', 'workspace/executeCommand', params, function() end)
  end
  ghost.update()
  return true
end

--- Insert the suggestion that is shown, exactly as it is shown. Not for `expr` mappings, which may not change text.
---@return boolean taken false where none is shown
function M.accept()
  if take(function(whole) return whole end) then return true end
  return vim.lsp.inline_completion ~= nil and vim.lsp.inline_completion.get() -- another server's
end

--- Insert its next word, with what stands before the word.
---@return boolean taken
function M.accept_word()
  return take(function(whole)
    return whole:match('^%s*[%w_\128-\255]+') or whole:match('^%s*[^%s%w_\128-\255]+') or whole
  end)
end

--- Insert the rest of its line, or, at the line's end, its next line.
---@return boolean taken
function M.accept_line() return take(function(whole) return whole:match('^\n?[^\n]*') end) end

function M.next() M.ghost().cycle(1) end

function M.previous() M.ghost().cycle(-1) end

---@return boolean dismissed false where nothing was shown
function M.dismiss()
  local ghost = M.ghost()
  local any = ghost.current() ~= nil
  ghost.dismiss()
  return any
end

--- Show ghost text in a buffer that our server has been attached to.
---@param buf integer
function M.attach(buf)
  if vim.g.lsp_charrnn_ghost == false then return end
  vim.api.nvim_set_hl(0, 'ComplHint', { default = true, link = 'NonText' }) -- 0.12 has it
  M.ghost().attach(buf)
  require('lsp_charrnn.keys').map(buf)
end

return M
