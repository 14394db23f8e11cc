-- Commands, keys and ghost text for whatever the server is attached to. On 0.10, which has no vim.lsp.enable, starts it, too.
if vim.g.loaded_lsp_charrnn then return end
vim.g.loaded_lsp_charrnn = true

local group = vim.api.nvim_create_augroup('lsp_charrnn', {})

local function ours(client_id)
  local client = vim.lsp.get_client_by_id(client_id)
  return client and client.name == 'lsp_charrnn'
end

vim.api.nvim_create_autocmd('LspAttach', {
  group = group,
  callback = function(event)
    if ours(event.data.client_id) then require('lsp_charrnn').attach(event.buf) end
  end,
})

vim.api.nvim_create_autocmd('LspProgress', {
  group = group,
  callback = function(event)
    local value = event.data.params.value
    if ours(event.data.client_id) and type(value) == 'table' then require('lsp_charrnn.commands').show_progress(value) end
  end,
})

vim.api.nvim_create_user_command('CharRnn', function(call) require('lsp_charrnn.commands').run(call.fargs) end, {
  nargs = '+',
  complete = function(lead, line) return require('lsp_charrnn.commands').complete(lead, line) end,
  desc = 'lsp-charrnn: toggle, status, stats, train, explore, model',
})

if not vim.lsp.enable then require('lsp_charrnn.start').enable() end
